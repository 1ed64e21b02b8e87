"""Read a topic again from a moment on, although everything was acknowledged long ago.

    python examples/replay.py

Publishes a few prices, consumes and acknowledges them all, and then asks: which prices came
after the market moved? A reader leaves no trace, so anybody may ask at any time.
"""

import os
import time
import uuid

import pulsar

TOPIC = f"prices-{uuid.uuid4()}"

client = pulsar.Client(os.environ.get("MAGNETAR_URL", "pulsar://localhost:6650"))
consumer = client.subscribe(TOPIC, "billing")
producer = client.create_producer(TOPIC)

for price in (100, 101, 102):
    producer.send(str(price).encode())
time.sleep(0.01)  # so that the moment lies between two messages, to the millisecond
moment_ms = time.time_ns() // 1_000_000
for price in (90, 91):
    producer.send(str(price).encode())

for _ in range(5):
    consumer.acknowledge(consumer.receive())
print("billing has acknowledged 5 prices")

reader = client.create_reader(TOPIC, pulsar.MessageId.earliest)
everything = []
while reader.has_message_available():
    everything.append(reader.read_next().data().decode())
print("all of them, again:", *everything)

reader.seek(moment_ms)
after = []
while reader.has_message_available():
    after.append(reader.read_next().data().decode())
print("after the market moved:", *after)
client.close()
