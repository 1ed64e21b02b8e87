// What the official Java client can do beyond Script's everyday: java -cp ... Further PULSAR_URL HTTP_URL
//
// Readers that ask whether there is more, seeking by function, partitions that come while one
// publishes, schemas that grow, transactions across subscriptions, and what else has names in
// Apache Pulsar's own integration tests. It answers as Script does, whose helpers it uses.
//
// The client closes its one connection when a consumer is closed while it subscribes again, after
// a seek; whatever is on its way is then sent twice. So contents are counted, not messages.

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.apache.pulsar.client.api.*;
import org.apache.pulsar.client.api.schema.GenericRecord;
import org.apache.pulsar.client.api.transaction.Transaction;
import org.apache.pulsar.client.impl.AutoClusterFailover;
import org.apache.pulsar.client.impl.MultiplierRedeliveryBackoff;

public class Further extends Script {
    public static class Old {
        public int x;

        public Old() {}

        public Old(int x) {
            this.x = x;
        }
    }

    public static class Grown {
        public int x;
        public String note = "none";
    }

    static String url;

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        open(arguments);
        readers();
        seeking();
        consumers();
        partitions();
        producers();
        growing();
        transactions();
        finish();
    }

    static MessageId[] sendAll(String topic, int count) throws Exception {
        MessageId[] ids = new MessageId[count];
        try (Producer<byte[]> producer = client.newProducer().topic(topic).enableBatching(false).create()) {
            for (int i = 0; i < count; i++) {
                ids[i] = producer.send(String.valueOf(i).getBytes());
            }
        }
        return ids;
    }

    static void batch(String topic, int count) throws Exception {
        try (Producer<byte[]> producer = client.newProducer().topic(topic).batchingMaxMessages(count)
                 .batchingMaxPublishDelay(5, TimeUnit.SECONDS).create()) {
            for (String each : numbers(count)) {
                producer.sendAsync(each.getBytes());
            }
            producer.flush();
        }
    }

    static List<String> rest(Reader<byte[]> reader) throws Exception {
        List<String> found = new ArrayList<>();
        while (reader.hasMessageAvailable()) {
            found.add(text(reader.readNext(10, TimeUnit.SECONDS)));
        }
        return found;
    }

    // --- readers

    static void readers() {
        checks.put("a reader at the end has nothing, then what comes", () -> {
            String topic = topic();
            sendAll(topic, 3);
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.latest).create()) {
                that(!reader.hasMessageAvailable(), "something is there already");
                send(topic, "new");
                until(reader::hasMessageAvailable, "the new message");
                same(List.of("new"), rest(reader));
            }
        });
        checks.put("a reader at the end, inclusive, has the last message", () -> {
            for (boolean batched : new boolean[] {false, true}) {
                String topic = topic();
                if (batched) {
                    batch(topic, 5);
                } else {
                    sendAll(topic, 5);
                }
                try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.latest)
                         .startMessageIdInclusive().create()) {
                    same(List.of("4"), rest(reader));
                }
            }
        });
        checks.put("a reader of an empty topic has nothing wherever it begins", () -> {
            try (PulsarClient own = PulsarClient.builder().serviceUrl(url).build()) {
                for (MessageId place : List.of(MessageId.earliest, MessageId.latest)) {
                    for (boolean with : new boolean[] {false, true}) {
                        ReaderBuilder<byte[]> builder = own.newReader().topic(topic()).startMessageId(place);
                        try (Reader<byte[]> reader = (with ? builder.startMessageIdInclusive() : builder).create()) {
                            that(!reader.hasMessageAvailable(), "something is there");
                        }
                    }
                }
            }
        });
        checks.put("a reader that seeks knows again whether there is more", () -> {
            String topic = topic();
            MessageId[] ids = sendAll(topic, 5);
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.earliest).create()) {
                same(5, new TreeSet<>(rest(reader)).size());
                reader.seek(ids[2]);
                same(List.of("3", "4"), rest(reader));
                reader.seek(MessageId.latest);
                that(!reader.hasMessageAvailable(), "something is behind the last");
                reader.seek(System.currentTimeMillis() + 60_000);
                that(!reader.hasMessageAvailable(), "something comes from the future");
                reader.seek(0L);
                same(5, new TreeSet<>(rest(reader)).size());
                until(reader::isConnected, "connected again");
            }
        });
        checks.put("a reader begins within a batch", () -> {
            String topic = topic();
            batch(topic, 6);
            List<MessageId> ids = new ArrayList<>();
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.earliest).create()) {
                while (reader.hasMessageAvailable()) {
                    ids.add(reader.readNext(10, TimeUnit.SECONDS).getMessageId());
                }
            }
            same(6, ids.size());
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(ids.get(2)).create()) {
                same(List.of("3", "4", "5"), rest(reader));
            }
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(ids.get(2))
                     .startMessageIdInclusive().create()) {
                same(List.of("2", "3", "4", "5"), rest(reader));
            }
        });
        checks.put("a reader reads all partitions, and several topics", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 3);
            send(topic, numbers(30));
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.earliest).create()) {
                same(new TreeSet<>(Arrays.asList(numbers(30))), new TreeSet<>(rest(reader)));
            }
            String other = topic();
            send(other, "other");
            try (Reader<byte[]> reader = client.newReader().topics(List.of(topic, other))
                     .startMessageId(MessageId.earliest).create()) {
                same(31, new TreeSet<>(rest(reader)).size());
            }
        });
        checks.put("a reader of some keys gets those", () -> {
            String topic = topic();
            send(topic, numbers(50));
            Map<String, Range> found = new ConcurrentHashMap<>();
            for (Range range : List.of(Range.of(0, 32767), Range.of(32768, 65535))) {
                try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.earliest)
                         .keyHashRange(range).create()) {
                    for (Message<byte[]> m; (m = reader.readNext(700, TimeUnit.MILLISECONDS)) != null;) {
                        same(range, found.computeIfAbsent(text(m), each -> range));
                    }
                }
            }
            same(50, found.size());
            same(2, new HashSet<>(found.values()).size());
        });
        checks.put("a table view of partitions tells its listener of each value", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 3);
            send(topic, numbers(20));
            Map<String, String> heard = new ConcurrentHashMap<>();
            try (TableView<byte[]> view = client.newTableView().topic(topic)
                     .autoUpdatePartitionsInterval(1, TimeUnit.SECONDS).create()) {
                view.forEachAndListen((key, value) -> heard.put(key, new String(value)));
                until(() -> heard.size() == 20, "20 values");
                send(topic, "later");
                until(() -> heard.containsKey("later"), "the later value");
                same(21, view.size());
                try (Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                    producer.newMessage().key("later").value(null).send();
                }
                until(() -> !view.containsKey("later"), "the key is removed");
            }
        });
    }

    // --- seeking

    static void seeking() {
        checks.put("a consumer seeks by a function of the topic, in all partitions", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 2);
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe()) {
                send(topic, numbers(10));
                take(consumer, 10);
                consumer.seek(each -> each.endsWith("0") ? MessageId.earliest : MessageId.latest);
                int again = 0;
                for (Message<byte[]> m; (m = consumer.receive(1, TimeUnit.SECONDS)) != null; again++) {
                    that(m.getTopicName().endsWith("-partition-0"), "from " + m.getTopicName());
                }
                long first = admin.topics().getStats(topic + "-partition-0").getMsgInCounter();
                same(first, (long) again);
            }
        });
        checks.put("a consumer seeks into a batch and gets what is behind", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).enableBatchIndexAcknowledgment(true).subscribe()) {
                batch(topic, 10);
                MessageId fourth = null;
                for (int i = 0; i < 10; i++) {
                    Message<byte[]> message = next(consumer);
                    fourth = i == 4 ? message.getMessageId() : fourth;
                    consumer.acknowledge(message);
                }
                consumer.seek(fourth);
                same(List.of("5", "6", "7", "8", "9"), take(consumer, 5));
                silent(consumer);
            }
            String other = topic();
            try (Consumer<byte[]> consumer = subscribe(other).startMessageIdInclusive()
                     .enableBatchIndexAcknowledgment(true).subscribe()) {
                batch(other, 4);
                List<MessageId> ids = new ArrayList<>();
                for (int i = 0; i < 4; i++) {
                    ids.add(next(consumer).getMessageId());
                }
                consumer.seek(ids.get(2));
                same(List.of("2", "3"), take(consumer, 2));
            }
        });
        checks.put("a cursor is reset while several share it", () -> {
            String topic = topic();
            try (Consumer<byte[]> a = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe();
                 Consumer<byte[]> b = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe()) {
                send(topic, numbers(20));
                Set<String> first = drain(a, b);
                same(20, first.size());
                admin.topics().resetCursor(topic, "s", 0L);
                same(first, drain(a, b));
            }
        });
    }

    @SafeVarargs
    static Set<String> drain(Consumer<byte[]>... consumers) throws Exception {
        Set<String> found = new TreeSet<>();
        for (int idle = 0; idle < 3;) {
            boolean some = false;
            for (Consumer<byte[]> each : consumers) {
                for (Message<byte[]> m; (m = each.receive(300, TimeUnit.MILLISECONDS)) != null; some = true) {
                    found.add(text(m));
                    each.acknowledge(m);
                }
            }
            idle = some ? 0 : idle + 1;
        }
        return found;
    }

    // --- consumers

    static void consumers() {
        checks.put("half a batch acknowledged cumulatively leaves the other half", () -> {
            String topic = topic();
            batch(topic, 10);
            Consumer<byte[]> first = subscribe(topic).enableBatchIndexAcknowledgment(true).subscribe();
            for (int i = 0; i < 10; i++) {
                Message<byte[]> message = next(first);
                if (i == 4) {
                    first.acknowledgeCumulative(message);
                }
            }
            first.close();
            try (Consumer<byte[]> second = subscribe(topic).enableBatchIndexAcknowledgment(true).subscribe()) {
                same(List.of("5", "6", "7", "8", "9"), take(second, 5));
                silent(second);
            }
        });
        checks.put("lists of messages are acknowledged at once", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .isAckReceiptEnabled(true).subscribe()) {
                sendAll(topic, 20);
                List<MessageId> ids = new ArrayList<>();
                for (int i = 0; i < 20; i++) {
                    ids.add(next(consumer).getMessageId());
                }
                consumer.acknowledge(ids.subList(0, 15));
                same(5L, admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog());
            }
        });
        checks.put("a subscription that is not durable goes with its consumer", () -> {
            String topic = topic();
            Consumer<byte[]> consumer = subscribe(topic).subscriptionMode(SubscriptionMode.NonDurable).subscribe();
            send(topic, "x");
            same("x", text(next(consumer)));
            same(List.of("s"), admin.topics().getSubscriptions(topic));
            consumer.close();
            until(() -> admin.topics().getSubscriptions(topic).isEmpty(), "no subscription");
        });
        checks.put("a consumer of higher priority is served first", () -> {
            String topic = topic();
            try (Consumer<byte[]> low = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .priorityLevel(5).receiverQueueSize(50).subscribe();
                 Consumer<byte[]> high = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .priorityLevel(0).receiverQueueSize(50).subscribe()) {
                sendAll(topic, 20);
                same(20, take(high, 20).size());
                silent(low);
            }
        });
        checks.put("a consumer that starts paused gets nothing until it goes on", () -> {
            String topic = topic();
            send(topic, "x");
            List<String> got = Collections.synchronizedList(new ArrayList<>());
            try (Consumer<byte[]> consumer = subscribe(topic).startPaused(true)
                     .messageListener((each, message) -> got.add(text(message))).subscribe()) {
                Thread.sleep(400);
                same(List.of(), got);
                consumer.resume();
                until(() -> got.size() == 1, "the message");
            }
        });
        checks.put("a listener that fails too often sends to the dead letter topic", () -> {
            String topic = topic();
            String dead = topic();
            try (Consumer<byte[]> letters = client.newConsumer().topic(dead).subscriptionName("kept").subscribe();
                 Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Key_Shared)
                     .negativeAckRedeliveryDelay(50, TimeUnit.MILLISECONDS)
                     .deadLetterPolicy(DeadLetterPolicy.builder().maxRedeliverCount(2).deadLetterTopic(dead)
                         .initialSubscriptionName("from-the-start").build())
                     .messageListener((each, message) -> each.negativeAcknowledge(message)).subscribe()) {
                send(topic, "bad", "worse");
                same(Set.of("bad", "worse"), new HashSet<>(take(letters, 2)));
                that(admin.topics().getSubscriptions(dead).contains("from-the-start"), "no initial subscription");
            }
        });
        checks.put("negative acknowledgements back off, and count", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .negativeAckRedeliveryBackoff(MultiplierRedeliveryBackoff.builder().minDelayMs(50)
                         .maxDelayMs(200).multiplier(2).build()).subscribe()) {
                send(topic, "x");
                for (int i = 0; i < 4; i++) {
                    Message<byte[]> message = next(consumer);
                    same(i, message.getRedeliveryCount());
                    consumer.negativeAcknowledge(message);
                }
            }
        });
        checks.put("a pattern takes partitioned topics, those in memory, and loses what is deleted", () -> {
            String prefix = "public/default/further-" + UUID.randomUUID();
            String both = "persistent://" + prefix + "-p";
            admin.topics().createPartitionedTopic(both, 2);
            try (Consumer<byte[]> consumer = client.newConsumer()
                     .topicsPattern(Pattern.compile(prefix + "-.*")).subscriptionName("s")
                     .subscriptionTopicsMode(RegexSubscriptionMode.AllTopics)
                     .patternAutoDiscoveryPeriod(1, TimeUnit.SECONDS).subscribe()) {
                send(both, numbers(10));
                same(10, new HashSet<>(take(consumer, 10)).size());
                String memory = "non-persistent://" + prefix + "-m";
                try (Producer<byte[]> producer = client.newProducer().topic(memory).create()) {
                    until(() -> {
                        producer.send("memory".getBytes());
                        Message<byte[]> message = consumer.receive(200, TimeUnit.MILLISECONDS);
                        return message != null && text(message).equals("memory");
                    }, "a message of the topic in memory");
                }
            }
            admin.topics().deletePartitionedTopic(both, true);
        });
        checks.put("properties of a subscription are kept and shown", () -> {
            String topic = topic();
            subscribe(topic).subscriptionProperties(Map.of("team", "red")).subscribe().close();
            same(Map.of("team", "red"), admin.topics().getSubscriptionProperties(topic, "s"));
            same(Map.of("team", "red"),
                admin.topics().getStats(topic).getSubscriptions().get("s").getSubscriptionProperties());
        });
        checks.put("chunks of several producers and redelivery make whole messages", () -> {
            String topic = topic();
            byte[] content = new byte[300_000];
            new java.util.Random(3).nextBytes(content);
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .negativeAckRedeliveryDelay(100, TimeUnit.MILLISECONDS).subscribe();
                 Producer<byte[]> a = client.newProducer().topic(topic).enableBatching(false).enableChunking(true)
                     .chunkMaxMessageSize(20_000).create();
                 Producer<byte[]> b = client.newProducer().topic(topic).enableBatching(false).enableChunking(true)
                     .chunkMaxMessageSize(30_000).compressionType(CompressionType.ZSTD).create()) {
                List<Future<MessageId>> sent = List.of(a.sendAsync(content), b.sendAsync(content));
                for (Future<MessageId> each : sent) {
                    each.get(20, TimeUnit.SECONDS);
                }
                for (int i = 0; i < 2; i++) {
                    Message<byte[]> message = next(consumer);
                    that(Arrays.equals(content, message.getData()), "the contents differ");
                    consumer.negativeAcknowledge(message);
                }
                for (int i = 0; i < 2; i++) {
                    Message<byte[]> message = next(consumer);
                    that(Arrays.equals(content, message.getData()), "the contents differ the second time");
                    consumer.acknowledge(message);
                }
                until(() -> admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog() == 0,
                    "everything is acknowledged");
            }
        });
    }

    // --- partitions

    static void partitions() {
        checks.put("partitions are counted, and made when asked for", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 3);
            List<String> names = client.getPartitionsForTopic(topic, true).get(10, TimeUnit.SECONDS);
            same(List.of(topic + "-partition-0", topic + "-partition-1", topic + "-partition-2"), names);
            String plain = topic();
            same(List.of(plain), client.getPartitionsForTopic(plain, true).get(10, TimeUnit.SECONDS));
        });
        checks.put("producers and consumers find partitions that are added", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 1);
            try (Consumer<byte[]> consumer = subscribe(topic).autoUpdatePartitionsInterval(1, TimeUnit.SECONDS)
                     .subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).enableBatching(false)
                     .messageRoutingMode(MessageRoutingMode.RoundRobinPartition)
                     .autoUpdatePartitionsInterval(1, TimeUnit.SECONDS).create()) {
                producer.send("first".getBytes());
                same(List.of("first"), take(consumer, 1));
                admin.topics().updatePartitionedTopic(topic, 3);
                Set<String> topics = new HashSet<>();
                until(() -> {
                    producer.send("x".getBytes());
                    Message<byte[]> message = next(consumer);
                    consumer.acknowledge(message);
                    topics.add(message.getTopicName());
                    return topics.size() == 3;
                }, "messages of three partitions");
            }
        });
        checks.put("producers of partitions start when they are needed", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 4);
            try (Producer<byte[]> producer = client.newProducer().topic(topic).enableLazyStartPartitionedProducers(true)
                     .messageRoutingMode(MessageRoutingMode.SinglePartition).create()) {
                producer.send("x".getBytes());
                int open = 0;
                for (int i = 0; i < 4; i++) {
                    open += admin.topics().getStats(topic + "-partition-" + i).getPublishers().size();
                }
                that(open < 4, "all producers are open");
            }
        });
        checks.put("the last message of each partition is known", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 3);
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe()) {
                send(topic, numbers(9));
                List<TopicMessageId> last = consumer.getLastMessageIds();
                same(3, last.size());
                same(3, new HashSet<>(last.stream().map(TopicMessageId::getOwnerTopic).toList()).size());
            }
        });
    }

    // --- producers

    static void producers() {
        checks.put("a producer of a name knows what it has sent before", () -> {
            String topic = topic();
            try (Producer<byte[]> producer = client.newProducer().topic(topic).producerName("p").create()) {
                same(-1L, producer.getLastSequenceId());
            }
            admin.namespaces();
            for (long start : new long[] {0, 3}) {
                try (Producer<byte[]> producer = client.newProducer().topic(topic).producerName("p")
                         .initialSequenceId(start + 4).enableBatching(false).create()) {
                    producer.send("x".getBytes());
                    same(start + 5, producer.getLastSequenceId());
                }
            }
        });
        checks.put("empty messages and null values come as such", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                producer.newMessage().key("a").value(new byte[0]).send();
                producer.newMessage().key("b").value(null).send();
                same(0, next(consumer).getData().length);
                that(next(consumer).getValue() == null, "the value is not null");
            }
        });
        checks.put("a message says where it may be replicated, and is delivered here", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).replicateSubscriptionState(true).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                producer.newMessage().value("x".getBytes()).disableReplication().send();
                same(List.of("x"), take(consumer, 1));
            }
        });
        checks.put("delayed messages of one key come in the order of their times", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                long now = System.currentTimeMillis();
                producer.newMessage().deliverAt(now + 900).value("late".getBytes()).send();
                producer.newMessage().deliverAt(now + 400).value("soon".getBytes()).send();
                producer.newMessage().deliverAt(now - 400).value("past".getBytes()).send();
                producer.newMessage().deliverAfter(600, TimeUnit.MILLISECONDS).value("then".getBytes()).send();
                same(List.of("past", "soon", "then", "late"), take(consumer, 4));
            }
        });
        checks.put("a client whose first cluster is down turns to the second", () -> {
            ServiceUrlProvider provider = AutoClusterFailover.builder().primary("pulsar://127.0.0.1:1")
                .secondary(Collections.singletonList(url)).failoverDelay(200, TimeUnit.MILLISECONDS)
                .switchBackDelay(1, TimeUnit.HOURS).checkInterval(200, TimeUnit.MILLISECONDS).build();
            String topic = topic();
            try (PulsarClient other = PulsarClient.builder().serviceUrlProvider(provider)
                     .operationTimeout(20, TimeUnit.SECONDS).build();
                 Producer<byte[]> producer = other.newProducer().topic(topic).create()) {
                producer.send("x".getBytes());
            }
        });
        checks.put("a client with little memory waits and loses nothing", () -> {
            String topic = topic();
            try (PulsarClient small = PulsarClient.builder().serviceUrl(url).memoryLimit(64, SizeUnit.KILO_BYTES).build();
                 Producer<byte[]> producer = small.newProducer().topic(topic).blockIfQueueFull(true).create();
                 Consumer<byte[]> consumer = small.newConsumer().topic(topic).subscriptionName("s")
                     .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                     .autoScaledReceiverQueueSizeEnabled(true).subscribe()) {
                for (int i = 0; i < 200; i++) {
                    producer.sendAsync(new byte[5000]);
                }
                producer.flush();
                for (int i = 0; i < 200; i++) {
                    consumer.acknowledge(next(consumer));
                }
            }
        });
    }

    // --- schemas that grow

    static void growing() {
        checks.put("messages of an older schema are read with a newer one, and generically", () -> {
            String topic = topic();
            try (Producer<Old> producer = client.newProducer(Schema.AVRO(Old.class)).topic(topic).create()) {
                producer.send(new Old(1));
            }
            try (Consumer<Grown> consumer = client.newConsumer(Schema.AVRO(Grown.class)).topic(topic)
                     .subscriptionName("s").subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                     .subscribe();
                 Producer<Grown> producer = client.newProducer(Schema.AVRO(Grown.class)).topic(topic).create();
                 Consumer<GenericRecord> any = client.newConsumer(Schema.AUTO_CONSUME()).topic(topic)
                     .subscriptionName("any").subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                     .subscribe()) {
                Grown two = new Grown();
                two.x = 2;
                two.note = "two";
                producer.send(two);
                same(1, consumer.receive(15, TimeUnit.SECONDS).getValue().x);
                same("two", consumer.receive(15, TimeUnit.SECONDS).getValue().note);
                same(1, any.receive(15, TimeUnit.SECONDS).getValue().getFields().size());
                same(2, any.receive(15, TimeUnit.SECONDS).getValue().getFields().size());
            }
            same(2, admin.schemas().getAllSchemas(topic).size());
        });
        checks.put("one producer sends messages of several schemas", () -> {
            String topic = topic();
            try (Producer<byte[]> producer = client.newProducer().topic(topic).enableMultiSchema(true).create();
                 Consumer<GenericRecord> any = client.newConsumer(Schema.AUTO_CONSUME()).topic(topic)
                     .subscriptionName("any").subscribe()) {
                producer.newMessage(Schema.AVRO(Old.class)).value(new Old(7)).send();
                Grown grown = new Grown();
                grown.x = 8;
                producer.newMessage(Schema.AVRO(Grown.class)).value(grown).send();
                same(7, any.receive(15, TimeUnit.SECONDS).getValue().getField("x"));
                Message<GenericRecord> second = any.receive(15, TimeUnit.SECONDS);
                same(8, second.getValue().getField("x"));
                that(second.getSchemaVersion().length == 8, "no version of a schema");
            }
        });
    }

    // --- transactions

    static Transaction begin() throws Exception {
        return client.newTransaction().withTransactionTimeout(30, TimeUnit.SECONDS).build().get(20, TimeUnit.SECONDS);
    }

    static void transactions() {
        checks.put("what is consumed and what is made of it count together", () -> {
            String source = topic();
            String sink = topic();
            send(source, numbers(10));
            try (Consumer<byte[]> in = subscribe(source).subscribe();
                 Producer<byte[]> out = client.newProducer().topic(sink).sendTimeout(0, TimeUnit.SECONDS).create();
                 Consumer<byte[]> result = subscribe(sink).subscribe()) {
                Transaction lost = begin();
                for (int i = 0; i < 10; i++) {
                    Message<byte[]> message = next(in);
                    out.newMessage(lost).value(message.getData()).send();
                    in.acknowledgeAsync(message.getMessageId(), lost).get(10, TimeUnit.SECONDS);
                }
                silent(result);
                lost.abort().get(20, TimeUnit.SECONDS);
                in.redeliverUnacknowledgedMessages();
                Transaction kept = begin();
                MessageId last = null;
                for (int i = 0; i < 10; i++) {
                    Message<byte[]> message = next(in);
                    out.newMessage(kept).value(message.getData()).send();
                    last = message.getMessageId();
                }
                in.acknowledgeCumulativeAsync(last, kept).get(10, TimeUnit.SECONDS);
                kept.commit().get(20, TimeUnit.SECONDS);
                same(Arrays.asList(numbers(10)), take(result, 10));
                silent(result);
                until(() -> admin.topics().getStats(source).getSubscriptions().get("s").getMsgBacklog() == 0,
                    "the source is consumed");
            }
        });
        checks.put("a message of a batch is acknowledged in a transaction", () -> {
            String topic = topic();
            batch(topic, 4);
            Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                .enableBatchIndexAcknowledgment(true).subscribe();
            Transaction committed = begin();
            for (int i = 0; i < 4; i++) {
                Message<byte[]> message = next(consumer);
                if (i < 2) {
                    consumer.acknowledgeAsync(message.getMessageId(), committed).get(10, TimeUnit.SECONDS);
                }
            }
            committed.commit().get(20, TimeUnit.SECONDS);
            consumer.close();
            try (Consumer<byte[]> again = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .enableBatchIndexAcknowledgment(true).subscribe()) {
                same(List.of("2", "3"), take(again, 2));
                silent(again);
            }
        });
        checks.put("a transaction that is over takes nothing more", () -> {
            String topic = topic();
            try (Producer<byte[]> producer = client.newProducer().topic(topic).sendTimeout(0, TimeUnit.SECONDS).create()) {
                Transaction done = begin();
                producer.newMessage(done).value("x".getBytes()).send();
                done.commit().get(20, TimeUnit.SECONDS);
                refused(Exception.class, () -> producer.newMessage(done).value("y".getBytes()).send());
                refused(Exception.class, () -> done.abort().get(20, TimeUnit.SECONDS));
                same(Transaction.State.COMMITTED, done.getState());
            }
        });
        checks.put("a client that knows only HTTP opens transactions", () -> {
            String http = admin.getServiceUrl();
            String topic = topic();
            try (PulsarClient other = PulsarClient.builder().serviceUrl(http).enableTransaction(true).build();
                 Producer<byte[]> producer = other.newProducer().topic(topic).sendTimeout(0, TimeUnit.SECONDS).create();
                 Consumer<byte[]> consumer = subscribe(topic).subscribe()) {
                Transaction transaction = other.newTransaction()
                    .withTransactionTimeout(Duration.ofSeconds(30).toMillis(), TimeUnit.MILLISECONDS).build()
                    .get(20, TimeUnit.SECONDS);
                producer.newMessage(transaction).value("x".getBytes()).send();
                silent(consumer);
                transaction.commit().get(20, TimeUnit.SECONDS);
                same(List.of("x"), take(consumer, 1));
            }
        });
        checks.put("properties of a message that is peeked at are those it was sent with", () -> {
            String topic = topic();
            subscribe(topic).subscribe().close();
            try (Producer<byte[]> producer = client.newProducer().topic(topic).enableBatching(false).create()) {
                producer.newMessage().property("Key=One", "a b: \u00e4").property("key2", "2").value("x".getBytes()).send();
            }
            Map<String, String> found = admin.topics().peekMessages(topic, "s", 1).get(0).getProperties();
            same("a b: \u00e4", found.get("Key=One"));
            same("2", found.get("key2"));
        });
    }
}
