"""A producer, a consumer, a reader and a seek, with the official client and no option changed.

Start a broker with `magnetar standalone`, then run `python examples/ten_lines.py`.
"""

import os

import pulsar

client = pulsar.Client(os.environ.get("MAGNETAR_URL", "pulsar://localhost:6650"))
consumer = client.subscribe("my-topic", "my-subscription")
producer = client.create_producer("my-topic")
first = producer.send(b"Hello")
producer.send(b"World")
for _ in range(2):
    message = consumer.receive()
    print("consumed", message.data().decode())
    consumer.acknowledge(message)
reader = client.create_reader("my-topic", first, start_message_id_inclusive=True)
print("read", reader.read_next().data().decode())
reader.seek(first)
print("read again", reader.read_next().data().decode())
client.close()
