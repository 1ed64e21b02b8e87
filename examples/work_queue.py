"""A queue of jobs, shared by three workers. One of them fails now and then.

    python examples/work_queue.py

A job that a worker gives back is delivered again, to whoever has time. In the end every job
was done once, and the queue is empty.
"""

import os
import threading
import uuid

import pulsar

TOPIC = f"jobs-{uuid.uuid4()}"
JOBS = 30

client = pulsar.Client(os.environ.get("MAGNETAR_URL", "pulsar://localhost:6650"))
done: dict[str, str] = {}
lock = threading.Lock()


def work(name: str, consumer: pulsar.Consumer, *, clumsy: bool) -> None:
    """Do jobs until all are done."""
    while len(done) < JOBS:
        try:
            message = consumer.receive(timeout_millis=200)
        except pulsar.Timeout:
            continue
        job = message.data().decode()
        if clumsy and message.redelivery_count() == 0:
            consumer.negative_acknowledge(message)  # somebody else, please
            continue
        with lock:
            done[job] = name
        consumer.acknowledge(message)


workers = []
for number in range(3):
    name = f"worker {number}"
    consumer = client.subscribe(
        TOPIC,
        "jobs",
        consumer_type=pulsar.ConsumerType.Shared,
        negative_ack_redelivery_delay_ms=100,
    )
    workers.append(
        threading.Thread(target=work, args=(name, consumer), kwargs={"clumsy": number == 0})
    )

producer = client.create_producer(TOPIC)
for job in range(JOBS):
    producer.send(f"job {job}".encode())
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(f"{len(done)} jobs done by {len(set(done.values()))} workers")
client.close()
