// What the official Java client can do, as one program: java -cp ... Script PULSAR_URL HTTP_URL
//
//   ok    sentence          for every check that holds
//   FAIL  sentence: why     for every one that does not; then the program ends with 1
//
// Checks run in parallel, each on topics of its own.

import java.nio.charset.StandardCharsets;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Pattern;
import org.apache.pulsar.client.admin.PulsarAdmin;
import org.apache.pulsar.client.admin.PulsarAdminException;
import org.apache.pulsar.client.api.*;
import org.apache.pulsar.client.api.schema.GenericRecord;
import org.apache.pulsar.client.api.transaction.Transaction;
import org.apache.pulsar.common.policies.data.AuthAction;
import org.apache.pulsar.common.policies.data.BacklogQuota;
import org.apache.pulsar.common.policies.data.ResourceGroup;
import org.apache.pulsar.common.policies.data.RetentionPolicies;
import org.apache.pulsar.common.policies.data.TenantInfo;
import org.apache.pulsar.common.schema.KeyValue;
import org.apache.pulsar.common.schema.KeyValueEncodingType;

public class Script {
    static PulsarClient client;
    static PulsarAdmin admin;
    static final Map<String, Check> checks = new TreeMap<>();

    interface Check {
        void run() throws Exception;
    }

    public static class Point {
        public int x;
        public String name;

        public Point() {}

        public Point(int x, String name) {
            this.x = x;
            this.name = name;
        }
    }

    public static class Clash {
        public String x;
        public long other;
    }

    static String topic() {
        return "persistent://public/default/" + UUID.randomUUID();
    }

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(Object expected, Object found) {
        that(expected.equals(found), "expected " + expected + ", found " + found);
    }

    static <E extends Throwable> E refused(Class<E> kind, Check check) throws Exception {
        try {
            check.run();
        } catch (Throwable error) {
            if (kind.isInstance(error)) {
                return kind.cast(error);
            }
            throw new AssertionError("expected " + kind.getSimpleName() + ", found " + error);
        }
        throw new AssertionError("expected " + kind.getSimpleName() + ", nothing was refused");
    }

    static String text(Message<byte[]> message) {
        that(message != null, "no message came in time");
        return new String(message.getData(), StandardCharsets.UTF_8);
    }

    static Message<byte[]> next(Consumer<byte[]> consumer) throws Exception {
        return consumer.receive(15, TimeUnit.SECONDS);
    }

    static void silent(Consumer<byte[]> consumer) throws Exception {
        that(consumer.receive(400, TimeUnit.MILLISECONDS) == null, "a message that nobody expected");
    }

    static ConsumerBuilder<byte[]> subscribe(String topic) {
        return client.newConsumer().topic(topic).subscriptionName("s")
            .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest);
    }

    static void send(String topic, String... contents) throws Exception {
        try (Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
            for (String content : contents) {
                producer.newMessage().key(content).value(content.getBytes()).send();
            }
        }
    }

    static List<String> take(Consumer<byte[]> consumer, int count) throws Exception {
        List<String> taken = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            Message<byte[]> message = next(consumer);
            taken.add(text(message));
            consumer.acknowledge(message);
        }
        return taken;
    }

    static void until(Callable<Boolean> condition, String what) throws Exception {
        for (long end = System.nanoTime() + 15_000_000_000L; !condition.call();) {
            that(System.nanoTime() < end, what + ": not in time");
            Thread.sleep(20);
        }
    }

    static String[] numbers(int count) {
        String[] found = new String[count];
        Arrays.setAll(found, String::valueOf);
        return found;
    }

    public static void main(String[] arguments) throws Exception {
        open(arguments);
        messages();
        subscriptions();
        contents();
        schemas();
        places();
        transactions();
        administration();
        finish();
    }

    static void open(String[] arguments) throws Exception {
        client = PulsarClient.builder().serviceUrl(arguments[0]).enableTransaction(true)
            .operationTimeout(20, TimeUnit.SECONDS).build();
        admin = PulsarAdmin.builder().serviceHttpUrl(arguments[1]).build();
    }

    static void finish() throws Exception {
        ExecutorService workers = Executors.newFixedThreadPool(8);
        Map<String, Future<String>> results = new TreeMap<>();
        checks.forEach((sentence, check) -> results.put(sentence, workers.submit(() -> {
            try {
                check.run();
                return "";
            } catch (Throwable error) {
                StackTraceElement where = Arrays.stream(error.getStackTrace())
                    .filter(each -> each.getClassName().matches("(Script|Further).*")).reduce((a, b) -> b)
                    .orElse(null);
                return String.valueOf(error).replace('\n', ' ') + " at " + where;
            }
        })));
        int failed = 0;
        for (Map.Entry<String, Future<String>> each : results.entrySet()) {
            String why;
            try {
                why = each.getValue().get(90, TimeUnit.SECONDS);
            } catch (java.util.concurrent.TimeoutException error) {
                why = "it takes longer than 90 s";
            }
            failed += why.isEmpty() ? 0 : 1;
            System.out.println(why.isEmpty() ? "ok    " + each.getKey()
                : "FAIL  " + each.getKey() + ": " + why);
        }
        System.out.println(checks.size() - failed + " passed, " + failed + " failed");
        System.out.flush();
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    // --- producers

    static void messages() {
        checks.put("a message comes with everything that was said about it", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).producerName("me").create()) {
                MessageId sent = producer.newMessage().key("k").orderingKey("o".getBytes())
                    .property("a", "b").eventTime(123456L).sequenceId(77).value("x".getBytes()).send();
                Message<byte[]> message = next(consumer);
                same("x", text(message));
                same(sent, message.getMessageId());
                same("k", message.getKey());
                same("o", new String(message.getOrderingKey()));
                same(Map.of("a", "b"), message.getProperties());
                same(123456L, message.getEventTime());
                same(77L, message.getSequenceId());
                same("me", message.getProducerName());
                same(topic, message.getTopicName());
                that(message.getPublishTime() > 1_600_000_000_000L, "publish time");
            }
        });
        checks.put("batches keep their order and are acknowledged one by one", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).batchingMaxMessages(50)
                     .batchingMaxPublishDelay(50, TimeUnit.MILLISECONDS).create()) {
                for (String each : numbers(500)) {
                    producer.sendAsync(each.getBytes());
                }
                producer.flush();
                same(Arrays.asList(numbers(500)), take(consumer, 500));
            }
        });
        checks.put("one message of a batch is acknowledged and the others come again", () -> {
            String topic = topic();
            try (Producer<byte[]> producer = client.newProducer().topic(topic).batchingMaxMessages(10)
                     .batchingMaxPublishDelay(1, TimeUnit.SECONDS).create()) {
                Consumer<byte[]> first = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                    .enableBatchIndexAcknowledgment(true).subscribe();
                for (String each : numbers(10)) {
                    producer.sendAsync(each.getBytes());
                }
                producer.flush();
                for (int i = 0; i < 10; i++) {
                    Message<byte[]> message = next(first);
                    if (i % 2 == 0) {
                        first.acknowledge(message);
                    }
                }
                first.close();
                try (Consumer<byte[]> second = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                         .enableBatchIndexAcknowledgment(true).subscribe()) {
                    same(List.of("1", "3", "5", "7", "9"), take(second, 5));
                    silent(second);
                }
            }
        });
        checks.put("key based batches reach the consumer of their key", () -> {
            String topic = topic();
            try (Consumer<byte[]> a = subscribe(topic).subscriptionType(SubscriptionType.Key_Shared).subscribe();
                 Consumer<byte[]> b = subscribe(topic).subscriptionType(SubscriptionType.Key_Shared).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic)
                     .batcherBuilder(BatcherBuilder.KEY_BASED).create()) {
                for (int i = 0; i < 200; i++) {
                    producer.newMessage().key("k" + i % 20).value(String.valueOf(i).getBytes()).sendAsync();
                }
                producer.flush();
                Map<String, Set<String>> owners = new HashMap<>();
                int count = 0;
                for (Consumer<byte[]> each : List.of(a, b)) {
                    for (Message<byte[]> m; (m = each.receive(1, TimeUnit.SECONDS)) != null; count++) {
                        owners.computeIfAbsent(m.getKey(), k -> new HashSet<>()).add(each == a ? "a" : "b");
                        each.acknowledge(m);
                    }
                }
                same(200, count);
                that(owners.values().stream().allMatch(set -> set.size() == 1), "a key had two consumers");
            }
        });
        for (CompressionType type : CompressionType.values()) {
            checks.put("messages compressed by " + type + " come as they were", () -> {
                String topic = topic();
                String content = "hello ".repeat(5000);
                try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                     Producer<byte[]> producer = client.newProducer().topic(topic).compressionType(type).create()) {
                    producer.send(content.getBytes());
                    same(content, text(next(consumer)));
                }
            });
        }
        checks.put("a message larger than the broker takes comes in chunks", () -> {
            String topic = topic();
            byte[] content = new byte[12 * 1024 * 1024];
            new java.util.Random(7).nextBytes(content);
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).enableBatching(false)
                     .enableChunking(true).create()) {
                MessageId sent = producer.send(content);
                Message<byte[]> message = next(consumer);
                that(Arrays.equals(content, message.getData()), "the contents differ");
                same(sent, message.getMessageId());
                consumer.acknowledge(message);
                producer.send("next".getBytes());
                same("next", text(next(consumer)));
            }
        });
        checks.put("a message larger than the broker takes is refused without chunks", () -> {
            try (Producer<byte[]> producer = client.newProducer().topic(topic()).create()) {
                refused(PulsarClientException.InvalidMessageException.class,
                    () -> producer.send(new byte[6 * 1024 * 1024]));
                producer.send("small".getBytes());
            }
        });
        checks.put("an encrypted message is read by who has the key and by nobody else", () -> {
            KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
            generator.initialize(2048);
            KeyPair pair = generator.generateKeyPair();
            CryptoKeyReader keys = new CryptoKeyReader() {
                private EncryptionKeyInfo info(String kind, byte[] key) {
                    String pem = "-----BEGIN " + kind + " KEY-----\n"
                        + Base64.getMimeEncoder(64, "\n".getBytes()).encodeToString(key)
                        + "\n-----END " + kind + " KEY-----\n";
                    return new EncryptionKeyInfo(pem.getBytes(), Map.of());
                }

                @Override
                public EncryptionKeyInfo getPublicKey(String name, Map<String, String> metadata) {
                    return info("PUBLIC", pair.getPublic().getEncoded());
                }

                @Override
                public EncryptionKeyInfo getPrivateKey(String name, Map<String, String> metadata) {
                    return info("PRIVATE", pair.getPrivate().getEncoded());
                }
            };
            String topic = topic();
            try (Consumer<byte[]> reads = subscribe(topic).cryptoKeyReader(keys).subscribe();
                 Consumer<byte[]> cannot = subscribe(topic).subscriptionName("raw")
                     .cryptoFailureAction(ConsumerCryptoFailureAction.CONSUME).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).cryptoKeyReader(keys)
                     .addEncryptionKey("alice").create()) {
                producer.send("secret".getBytes());
                same("secret", text(next(reads)));
                Message<byte[]> raw = next(cannot);
                that(!text(raw).contains("secret"), "the broker let the contents through");
                that(raw.getEncryptionCtx().get().getKeys().containsKey("alice"), "no encryption context");
            }
        });
        checks.put("exclusive producers keep others out until they leave", () -> {
            String topic = topic();
            Producer<byte[]> one = client.newProducer().topic(topic).accessMode(ProducerAccessMode.Exclusive).create();
            refused(PulsarClientException.ProducerFencedException.class,
                () -> client.newProducer().topic(topic).accessMode(ProducerAccessMode.Exclusive).create());
            refused(PulsarClientException.ProducerBusyException.class,
                () -> client.newProducer().topic(topic).create());
            Future<Producer<byte[]>> waiting = client.newProducer().topic(topic)
                .accessMode(ProducerAccessMode.WaitForExclusive).createAsync();
            Thread.sleep(200);
            that(!waiting.isDone(), "it did not wait");
            one.close();
            Producer<byte[]> two = waiting.get(10, TimeUnit.SECONDS);
            two.send("x".getBytes());
            Producer<byte[]> three = client.newProducer().topic(topic)
                .accessMode(ProducerAccessMode.ExclusiveWithFencing).create();
            three.send("y".getBytes());
            refused(PulsarClientException.class, () -> two.send("z".getBytes()));
            three.close();
        });
        checks.put("a name belongs to one producer at a time", () -> {
            String topic = topic();
            try (Producer<byte[]> one = client.newProducer().topic(topic).producerName("p").create()) {
                refused(PulsarClientException.ProducerBusyException.class,
                    () -> client.newProducer().topic(topic).producerName("p").create());
            }
        });
        checks.put("what is sent twice is stored once where the namespace says so", () -> {
            String namespace = "public/" + UUID.randomUUID();
            admin.namespaces().createNamespace(namespace);
            admin.namespaces().setDeduplicationStatus(namespace, true);
            String topic = "persistent://" + namespace + "/t";
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe()) {
                for (int round = 0; round < 2; round++) {
                    try (Producer<byte[]> producer = client.newProducer().topic(topic).producerName("p")
                             .sendTimeout(0, TimeUnit.SECONDS).create()) {
                        same(round == 0 ? -1L : 9L, producer.getLastSequenceId());
                        for (int i = 0; i < 10; i++) {
                            producer.newMessage().sequenceId(i).value(String.valueOf(i).getBytes()).send();
                        }
                    }
                }
                same(Arrays.asList(numbers(10)), take(consumer, 10));
                silent(consumer);
            }
        });
        checks.put("interceptors see what is sent, received and acknowledged", () -> {
            String topic = topic();
            Map<String, AtomicInteger> seen = new ConcurrentHashMap<>();
            ProducerInterceptor<byte[]> producing = new ProducerInterceptor<>() {
                @Override
                public void close() {}

                @Override
                public Message<byte[]> beforeSend(Producer<byte[]> producer, Message<byte[]> message) {
                    seen.computeIfAbsent("send", k -> new AtomicInteger()).incrementAndGet();
                    return message;
                }

                @Override
                public void onSendAcknowledgement(
                    Producer<byte[]> producer, Message<byte[]> message, MessageId id, Throwable error) {
                    seen.computeIfAbsent("receipt", k -> new AtomicInteger()).incrementAndGet();
                }
            };
            ConsumerInterceptor<byte[]> consuming = new ConsumerInterceptor<>() {
                @Override
                public void close() {}

                @Override
                public Message<byte[]> beforeConsume(Consumer<byte[]> consumer, Message<byte[]> message) {
                    seen.computeIfAbsent("consume", k -> new AtomicInteger()).incrementAndGet();
                    return message;
                }

                @Override
                public void onAcknowledge(Consumer<byte[]> consumer, MessageId id, Throwable error) {
                    seen.computeIfAbsent("ack", k -> new AtomicInteger()).incrementAndGet();
                }

                @Override
                public void onAcknowledgeCumulative(Consumer<byte[]> consumer, MessageId id, Throwable error) {}

                @Override
                public void onNegativeAcksSend(Consumer<byte[]> consumer, Set<MessageId> ids) {}

                @Override
                public void onAckTimeoutSend(Consumer<byte[]> consumer, Set<MessageId> ids) {}
            };
            try (Consumer<byte[]> consumer = subscribe(topic).intercept(consuming).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).intercept(producing).create()) {
                producer.send("x".getBytes());
                take(consumer, 1);
                until(() -> seen.size() == 4, "interceptors " + seen);
            }
        });
        checks.put("partitions are chosen by key and routed round", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 4);
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).enableBatching(false)
                     .messageRoutingMode(MessageRoutingMode.RoundRobinPartition).create()) {
                Map<String, Set<String>> byKey = new HashMap<>();
                for (int i = 0; i < 40; i++) {
                    producer.newMessage().key("k" + i % 8).value(String.valueOf(i).getBytes()).send();
                }
                Set<String> partitions = new HashSet<>();
                for (int i = 0; i < 40; i++) {
                    Message<byte[]> message = next(consumer);
                    partitions.add(message.getTopicName());
                    byKey.computeIfAbsent(message.getKey(), k -> new HashSet<>()).add(message.getTopicName());
                    consumer.acknowledge(message);
                }
                that(byKey.values().stream().allMatch(set -> set.size() == 1), "a key on two partitions");
                for (int i = 0; i < 8; i++) {
                    producer.send("x".getBytes());
                    partitions.add(next(consumer).getTopicName());
                }
                same(4, partitions.size());
                same(4, client.getPartitionsForTopic(topic).get().size());
            }
        });
        checks.put("a topic in memory delivers to who is there", () -> {
            String topic = topic().replace("persistent://", "non-persistent://");
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                producer.send("x".getBytes());
                same("x", text(next(consumer)));
            }
        });
    }

    // --- subscriptions

    static void subscriptions() {
        checks.put("an exclusive subscription has one consumer", () -> {
            String topic = topic();
            try (Consumer<byte[]> one = subscribe(topic).subscribe()) {
                refused(PulsarClientException.ConsumerBusyException.class, () -> subscribe(topic).subscribe());
                send(topic, numbers(5));
                Message<byte[]> last = null;
                for (int i = 0; i < 5; i++) {
                    last = next(one);
                }
                one.acknowledgeCumulative(last);
            }
            try (Consumer<byte[]> again = subscribe(topic).subscribe()) {
                silent(again);
            }
        });
        checks.put("a shared subscription gives each message to one consumer", () -> {
            String topic = topic();
            try (Consumer<byte[]> a = subscribe(topic).subscriptionType(SubscriptionType.Shared).receiverQueueSize(5).subscribe();
                 Consumer<byte[]> b = subscribe(topic).subscriptionType(SubscriptionType.Shared).receiverQueueSize(5).subscribe()) {
                send(topic, numbers(40));
                Set<String> got = new HashSet<>();
                Map<Consumer<byte[]>, Integer> counts = new HashMap<>();
                while (got.size() < 40) {
                    for (Consumer<byte[]> each : List.of(a, b)) {
                        Message<byte[]> message = each.receive(200, TimeUnit.MILLISECONDS);
                        if (message != null) {
                            that(got.add(text(message)), "twice: " + text(message));
                            counts.merge(each, 1, Integer::sum);
                            each.acknowledge(message);
                        }
                    }
                }
                same(2, counts.size());
            }
        });
        checks.put("a failover subscription serves one and then the other", () -> {
            String topic = topic();
            List<String> active = Collections.synchronizedList(new ArrayList<>());
            ConsumerEventListener listener = new ConsumerEventListener() {
                @Override
                public void becameActive(Consumer<?> consumer, int partition) {
                    active.add(consumer.getConsumerName());
                }

                @Override
                public void becameInactive(Consumer<?> consumer, int partition) {}
            };
            Consumer<byte[]> a = subscribe(topic).subscriptionType(SubscriptionType.Failover).consumerName("a")
                .priorityLevel(0).consumerEventListener(listener).subscribe();
            Consumer<byte[]> b = subscribe(topic).subscriptionType(SubscriptionType.Failover).consumerName("b")
                .priorityLevel(1).consumerEventListener(listener).subscribe();
            send(topic, "1", "2");
            same(List.of("1", "2"), take(a, 2));
            silent(b);
            a.close();
            send(topic, "3");
            same(List.of("3"), take(b, 1));
            until(() -> active.contains("b"), "b became active");
            b.close();
        });
        checks.put("sticky ranges of keys get what falls into them", () -> {
            String topic = topic();
            try (Consumer<byte[]> low = subscribe(topic).subscriptionType(SubscriptionType.Key_Shared)
                     .keySharedPolicy(KeySharedPolicy.stickyHashRange().ranges(Range.of(0, 32767))).subscribe();
                 Consumer<byte[]> high = subscribe(topic).subscriptionType(SubscriptionType.Key_Shared)
                     .keySharedPolicy(KeySharedPolicy.stickyHashRange().ranges(Range.of(32768, 65535))).subscribe()) {
                refused(PulsarClientException.class, () -> subscribe(topic)
                    .subscriptionType(SubscriptionType.Key_Shared)
                    .keySharedPolicy(KeySharedPolicy.stickyHashRange().ranges(Range.of(0, 10))).subscribe());
                send(topic, numbers(60));
                int count = 0;
                for (Consumer<byte[]> each : List.of(low, high)) {
                    int of = 0;
                    for (Message<byte[]> m; (m = each.receive(700, TimeUnit.MILLISECONDS)) != null; of++) {
                        each.acknowledge(m);
                    }
                    that(of > 5, "one side got next to nothing");
                    count += of;
                }
                same(60, count);
            }
        });
        checks.put("a negative acknowledgement brings a message again", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .negativeAckRedeliveryDelay(100, TimeUnit.MILLISECONDS).subscribe()) {
                send(topic, "x");
                for (int count = 0; count < 3; count++) {
                    Message<byte[]> message = next(consumer);
                    same(count, message.getRedeliveryCount());
                    consumer.negativeAcknowledge(message);
                }
                take(consumer, 1);
            }
        });
        checks.put("a message that is not acknowledged in time comes again", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .ackTimeout(1, TimeUnit.SECONDS).ackTimeoutTickTime(100, TimeUnit.MILLISECONDS).subscribe()) {
                send(topic, "x");
                next(consumer);
                same(List.of("x"), take(consumer, 1));
            }
        });
        checks.put("a message that fails too often goes to the dead letter topic", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .negativeAckRedeliveryDelay(50, TimeUnit.MILLISECONDS)
                     .deadLetterPolicy(DeadLetterPolicy.builder().maxRedeliverCount(2)
                         .initialSubscriptionName("init").build()).subscribe()) {
                send(topic, "poison");
                for (int i = 0; i < 3; i++) {
                    consumer.negativeAcknowledge(next(consumer));
                }
                try (Consumer<byte[]> dead = client.newConsumer().topic(topic + "-s-DLQ").subscriptionName("init").subscribe()) {
                    Message<byte[]> letter = next(dead);
                    same("poison", text(letter));
                    same(topic, letter.getProperty("REAL_TOPIC"));
                }
            }
        });
        checks.put("a message that is to be consumed later comes by the retry topic", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .enableRetry(true)
                     .deadLetterPolicy(DeadLetterPolicy.builder().maxRedeliverCount(2).build()).subscribe()) {
                send(topic, "x");
                consumer.reconsumeLater(next(consumer), 500, TimeUnit.MILLISECONDS);
                Message<byte[]> again = next(consumer);
                same("x", text(again));
                same("1", again.getProperty("RECONSUMETIMES"));
                consumer.acknowledge(again);
            }
        });
        checks.put("a delayed message waits for its time", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                long sent = System.currentTimeMillis();
                producer.newMessage().deliverAfter(2, TimeUnit.SECONDS).value("late".getBytes()).send();
                producer.newMessage().value("now".getBytes()).send();
                same(List.of("now", "late"), take(consumer, 2));
                that(System.currentTimeMillis() - sent >= 1000, "it came too early");
            }
        });
        checks.put("messages are received in batches of the consumer's choice", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).batchReceivePolicy(BatchReceivePolicy.builder()
                     .maxNumMessages(10).timeout(2, TimeUnit.SECONDS).build()).subscribe()) {
                send(topic, numbers(10));
                Messages<byte[]> found = consumer.batchReceive();
                same(10, found.size());
                consumer.acknowledge(found);
            }
        });
        checks.put("a consumer without a queue receives one by one", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared)
                     .receiverQueueSize(0).subscribe()) {
                send(topic, "1", "2", "3");
                for (String content : List.of("1", "2", "3")) {
                    Message<byte[]> message = consumer.receive();  // it takes no time-out
                    same(content, text(message));
                    consumer.acknowledge(message);
                }
            }
        });
        checks.put("acknowledgements are confirmed when asked for", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).isAckReceiptEnabled(true).subscribe()) {
                send(topic, "x");
                consumer.acknowledgeAsync(next(consumer)).get(10, TimeUnit.SECONDS);
                same(0L, admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog());
            }
        });
        checks.put("several topics are consumed by one consumer", () -> {
            String a = topic();
            String b = topic();
            try (Consumer<byte[]> consumer = client.newConsumer().topics(List.of(a, b)).subscriptionName("s")
                     .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest).subscribe()) {
                send(a, "1");
                send(b, "2");
                same(Set.of("1", "2"), new HashSet<>(take(consumer, 2)));
            }
        });
        checks.put("topics that fit a pattern are found when they come", () -> {
            String prefix = "public/default/pattern-" + UUID.randomUUID();
            send("persistent://" + prefix + "-a", "1");
            try (Consumer<byte[]> consumer = client.newConsumer()
                     .topicsPattern(Pattern.compile("persistent://" + prefix + "-.*")).subscriptionName("s")
                     .patternAutoDiscoveryPeriod(1, TimeUnit.MINUTES)
                     .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest).subscribe()) {
                same(List.of("1"), take(consumer, 1));
                send("persistent://" + prefix + "-b", "2");
                same(List.of("2"), take(consumer, 1));
            }
        });
        checks.put("a subscription that is deleted is gone", () -> {
            String topic = topic();
            Consumer<byte[]> consumer = subscribe(topic).subscribe();
            consumer.unsubscribe();
            same(List.of(), admin.topics().getSubscriptions(topic));
        });
        checks.put("a paused consumer gets nothing until it goes on", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).receiverQueueSize(1).subscribe()) {
                consumer.pause();
                send(topic, "1", "2", "3", "4");
                Thread.sleep(300);
                consumer.resume();
                same(List.of("1", "2", "3", "4"), take(consumer, 4));
            }
        });
        checks.put("a listener is called for each message", () -> {
            String topic = topic();
            AtomicInteger count = new AtomicInteger();
            try (Consumer<byte[]> consumer = subscribe(topic).messageListener((each, message) -> {
                count.incrementAndGet();
                each.acknowledgeAsync(message);
            }).subscribe()) {
                send(topic, numbers(20));
                until(() -> count.get() == 20, "20 calls, " + count);
            }
        });
    }

    // --- readers, places, time

    static void contents() {
        checks.put("a table view has the last value of each key and follows", () -> {
            String topic = topic();
            send(topic, "a", "b", "a");
            try (TableView<byte[]> view = client.newTableView().topic(topic).create()) {
                same(2, view.size());
                try (Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                    producer.newMessage().key("c").value("3".getBytes()).send();
                }
                until(() -> view.containsKey("c"), "the new key");
                same("3", new String(view.get("c")));
            }
        });
        checks.put("a compacted topic is read as its last values", () -> {
            String topic = topic();
            try (Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                for (int i = 0; i < 50; i++) {
                    producer.newMessage().key("k" + i % 5).value(String.valueOf(i).getBytes()).send();
                }
                producer.newMessage().key("k0").send();
                admin.topics().triggerCompaction(topic);
                until(() -> admin.topics().compactionStatus(topic).status.name().equals("SUCCESS"), "compaction");
                producer.newMessage().key("k9").value("after".getBytes()).send();
            }
            try (Reader<byte[]> reader = client.newReader().topic(topic).readCompacted(true)
                     .startMessageId(MessageId.earliest).create()) {
                List<String> found = new ArrayList<>();
                while (reader.hasMessageAvailable()) {
                    found.add(text(reader.readNext(10, TimeUnit.SECONDS)));
                }
                same(List.of("46", "47", "48", "49", "after"), found);
            }
        });
    }

    static void places() {
        checks.put("a reader reads from the first message to the last", () -> {
            String topic = topic();
            send(topic, numbers(20));
            try (Reader<byte[]> reader = client.newReader().topic(topic).startMessageId(MessageId.earliest).create()) {
                List<String> found = new ArrayList<>();
                while (reader.hasMessageAvailable()) {
                    found.add(text(reader.readNext(10, TimeUnit.SECONDS)));
                }
                same(Arrays.asList(numbers(20)), found);
            }
        });
        checks.put("a reader begins at a message, with it or behind it", () -> {
            String topic = topic();
            MessageId place = null;
            try (Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                for (String each : numbers(5)) {
                    MessageId id = producer.send(each.getBytes());
                    place = each.equals("2") ? id : place;
                }
            }
            for (boolean with : new boolean[] {true, false}) {
                ReaderBuilder<byte[]> builder = client.newReader().topic(topic).startMessageId(place);
                try (Reader<byte[]> reader = (with ? builder.startMessageIdInclusive() : builder).create()) {
                    same(with ? "2" : "3", text(reader.readNext(10, TimeUnit.SECONDS)));
                }
            }
        });
        checks.put("a reader starts some time back", () -> {
            String topic = topic();
            send(topic, "x");
            try (Reader<byte[]> reader = client.newReader().topic(topic)
                     .startMessageFromRollbackDuration(1, TimeUnit.HOURS).create()) {
                same("x", text(reader.readNext(10, TimeUnit.SECONDS)));
            }
        });
        checks.put("a consumer seeks by message and by time", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe()) {
                send(topic, numbers(5));
                MessageId second = null;
                for (int i = 0; i < 5; i++) {
                    Message<byte[]> message = next(consumer);
                    consumer.acknowledge(message);
                    second = i == 1 ? message.getMessageId() : second;
                }
                consumer.seek(second);
                same("2", text(next(consumer)));
                consumer.seek(MessageId.earliest);
                same("0", text(next(consumer)));
                Thread.sleep(50);
                long now = System.currentTimeMillis();
                send(topic, "new");
                consumer.seek(now);
                same("new", text(next(consumer)));
            }
        });
        checks.put("the last message of a topic is known", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                MessageId sent = producer.send("x".getBytes());
                same(sent, consumer.getLastMessageIds().get(0));
            }
        });
        checks.put("a terminated topic can be read to its end and takes no more", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).create()) {
                producer.send("last".getBytes());
                admin.topics().terminateTopic(topic);
                refused(PulsarClientException.TopicTerminatedException.class, () -> producer.send("x".getBytes()));
                same(List.of("last"), take(consumer, 1));
                until(consumer::hasReachedEndOfTopic, "the end of the topic");
            }
        });
    }

    // --- schemas

    static void schemas() {
        checks.put("texts are sent and received as texts", () -> roundTrip(Schema.STRING, "héllo"));
        checks.put("numbers and times are sent and received as such", () -> {
            roundTrip(Schema.INT32, -5);
            roundTrip(Schema.INT64, 1L << 40);
            roundTrip(Schema.DOUBLE, 1.5);
            roundTrip(Schema.BOOL, true);
            roundTrip(Schema.INSTANT, java.time.Instant.ofEpochMilli(1_700_000_000_123L));
            roundTrip(Schema.LOCAL_DATE, java.time.LocalDate.of(2026, 1, 2));
        });
        for (Schema<Point> schema : List.of(Schema.JSON(Point.class), Schema.AVRO(Point.class))) {
            String kind = schema.getSchemaInfo().getType().name();
            checks.put("objects go as " + kind + " and come back, typed or generic", () -> {
                String topic = topic();
                try (Consumer<Point> typed = client.newConsumer(schema).topic(topic).subscriptionName("a").subscribe();
                     Consumer<GenericRecord> generic = client.newConsumer(Schema.AUTO_CONSUME()).topic(topic)
                         .subscriptionName("b").subscribe();
                     Producer<Point> producer = client.newProducer(schema).topic(topic).create()) {
                    producer.send(new Point(3, "three"));
                    Message<Point> message = typed.receive(15, TimeUnit.SECONDS);
                    same(3, message.getValue().x);
                    same("three", message.getValue().name);
                    GenericRecord record = generic.receive(15, TimeUnit.SECONDS).getValue();
                    same(3, record.getField("x"));
                    same("three", String.valueOf(record.getField("name")));
                }
                same(kind, admin.schemas().getSchemaInfo(topic).getType().name());
            });
            checks.put("a schema that does not fit the " + kind + " of its topic is refused", () -> {
                String topic = topic();
                client.newProducer(schema).topic(topic).create().close();
                Schema<Clash> other = kind.equals("AVRO") ? Schema.AVRO(Clash.class) : Schema.JSON(Clash.class);
                refused(PulsarClientException.IncompatibleSchemaException.class,
                    () -> client.newProducer(other).topic(topic).create());
                same(1, admin.schemas().getAllSchemas(topic).size());
            });
        }
        checks.put("bytes are checked against the schema of their topic", () -> {
            String topic = topic();
            client.newProducer(Schema.AVRO(Point.class)).topic(topic).create().close();
            try (Consumer<Point> consumer = client.newConsumer(Schema.AVRO(Point.class)).topic(topic)
                     .subscriptionName("s").subscribe();
                 Producer<byte[]> producer = client.newProducer(Schema.AUTO_PRODUCE_BYTES()).topic(topic).create()) {
                producer.send(Schema.AVRO(Point.class).encode(new Point(1, "one")));
                same("one", consumer.receive(15, TimeUnit.SECONDS).getValue().name);
                refused(Exception.class, () -> producer.send("nonsense".getBytes()));
            }
        });
        for (KeyValueEncodingType encoding : KeyValueEncodingType.values()) {
            checks.put("keys and values are sent together, " + encoding, () -> {
                Schema<KeyValue<Point, String>> schema =
                    Schema.KeyValue(Schema.AVRO(Point.class), Schema.STRING, encoding);
                String topic = topic();
                try (Consumer<KeyValue<Point, String>> consumer = client.newConsumer(schema).topic(topic)
                         .subscriptionName("s").subscribe();
                     Producer<KeyValue<Point, String>> producer = client.newProducer(schema).topic(topic).create()) {
                    producer.send(new KeyValue<>(new Point(1, "one"), "v"));
                    KeyValue<Point, String> found = consumer.receive(15, TimeUnit.SECONDS).getValue();
                    same("one", found.getKey().name);
                    same("v", found.getValue());
                }
            });
        }
        checks.put("a schema is uploaded, listed and deleted", () -> {
            String topic = topic();
            admin.topics().createNonPartitionedTopic(topic);
            admin.schemas().createSchema(topic, Schema.JSON(Point.class).getSchemaInfo());
            same(0L, admin.schemas().getSchemaInfoWithVersion(topic).getVersion());
            same("JSON", admin.schemas().getSchemaInfo(topic, 0).getType().name());
            that(admin.schemas().testCompatibility(topic, new org.apache.pulsar.common.protocol.schema.PostSchemaPayload(
                "JSON", Schema.JSON(Point.class).getSchemaInfo().getSchemaDefinition(), Map.of())).isCompatibility(),
                "a schema is compatible with itself");
            admin.schemas().deleteSchema(topic);
            refused(PulsarAdminException.NotFoundException.class, () -> admin.schemas().getSchemaInfo(topic));
        });
    }

    static <T> void roundTrip(Schema<T> schema, T value) throws Exception {
        String topic = topic();
        try (Consumer<T> consumer = client.newConsumer(schema).topic(topic).subscriptionName("s").subscribe();
             Producer<T> producer = client.newProducer(schema).topic(topic).create()) {
            producer.send(value);
            Message<T> message = consumer.receive(15, TimeUnit.SECONDS);
            that(message != null, "no message came in time");
            same(value, message.getValue());
        }
    }

    // --- transactions

    static void transactions() {
        checks.put("a transaction publishes to two topics at once when it is committed", () -> {
            String a = topic();
            String b = topic();
            try (Consumer<byte[]> ca = subscribe(a).subscribe(); Consumer<byte[]> cb = subscribe(b).subscribe();
                 Producer<byte[]> pa = client.newProducer().topic(a).sendTimeout(0, TimeUnit.SECONDS).create();
                 Producer<byte[]> pb = client.newProducer().topic(b).sendTimeout(0, TimeUnit.SECONDS).create()) {
                Transaction transaction = begin();
                pa.newMessage(transaction).value("1".getBytes()).send();
                pb.newMessage(transaction).value("2".getBytes()).send();
                pa.newMessage().value("outside".getBytes()).send();
                silent(ca);
                silent(cb);
                transaction.commit().get(20, TimeUnit.SECONDS);
                same(List.of("1", "outside"), take(ca, 2));
                same(List.of("2"), take(cb, 1));
            }
        });
        checks.put("a transaction that is aborted was never there", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).sendTimeout(0, TimeUnit.SECONDS).create()) {
                Transaction transaction = begin();
                producer.newMessage(transaction).value("never".getBytes()).send();
                transaction.abort().get(20, TimeUnit.SECONDS);
                producer.send("after".getBytes());
                same(List.of("after"), take(consumer, 1));
                silent(consumer);
            }
        });
        checks.put("an acknowledgement in a transaction counts when it is committed", () -> {
            String topic = topic();
            send(topic, "1", "2");
            Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe();
            Transaction aborted = begin();
            Message<byte[]> first = next(consumer);
            consumer.acknowledgeAsync(first.getMessageId(), aborted).get(10, TimeUnit.SECONDS);
            aborted.abort().get(20, TimeUnit.SECONDS);
            Transaction committed = begin();
            Message<byte[]> second = next(consumer);
            consumer.acknowledgeAsync(second.getMessageId(), committed).get(10, TimeUnit.SECONDS);
            committed.commit().get(20, TimeUnit.SECONDS);
            consumer.close();
            try (Consumer<byte[]> again = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe()) {
                same(List.of("1"), take(again, 1));
                silent(again);
            }
        });
        checks.put("messages of one batch may be in several transactions", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic)
                     .batchingMaxPublishDelay(1, TimeUnit.SECONDS).batchingMaxMessages(10)
                     .sendTimeout(0, TimeUnit.SECONDS).create()) {
                Transaction committed = begin();
                Transaction aborted = begin();
                List<String> wanted = new ArrayList<>();
                for (int i = 0; i < 25; i++) {
                    String text = String.valueOf(i);
                    producer.newMessage(i % 2 == 0 ? committed : aborted).value(text.getBytes()).sendAsync();
                    if (i % 2 == 0) {
                        wanted.add(text);
                    }
                }
                producer.flush();
                silent(consumer);
                committed.commit().get(20, TimeUnit.SECONDS);
                aborted.abort().get(20, TimeUnit.SECONDS);
                same(wanted, take(consumer, wanted.size()));
                silent(consumer);
            }
        });
        checks.put("a batch is acknowledged message by message in one transaction", () -> {
            String topic = topic();
            try (Producer<byte[]> producer = client.newProducer().topic(topic)
                     .batchingMaxPublishDelay(1, TimeUnit.SECONDS).create()) {
                for (int i = 0; i < 10; i++) {
                    producer.sendAsync(String.valueOf(i).getBytes());
                }
                producer.flush();
            }
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe()) {
                Transaction transaction = begin();
                for (int i = 0; i < 10; i++) {
                    consumer.acknowledgeAsync(next(consumer).getMessageId(), transaction).get(10, TimeUnit.SECONDS);
                }
                transaction.commit().get(20, TimeUnit.SECONDS);
                until(() -> admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog() == 0,
                    "an empty backlog");
            }
        });
        checks.put("two transactions cannot acknowledge the same message", () -> {
            String topic = topic();
            send(topic, "x");
            try (Consumer<byte[]> consumer = subscribe(topic).subscriptionType(SubscriptionType.Shared).subscribe()) {
                Message<byte[]> message = next(consumer);
                Transaction one = begin();
                Transaction two = begin();
                consumer.acknowledgeAsync(message.getMessageId(), one).get(10, TimeUnit.SECONDS);
                refused(Exception.class,
                    () -> consumer.acknowledgeAsync(message.getMessageId(), two).get(10, TimeUnit.SECONDS));
                two.abort().get(20, TimeUnit.SECONDS);
                one.commit().get(20, TimeUnit.SECONDS);
            }
        });
        checks.put("a transaction ends by itself when its time is up", () -> {
            String topic = topic();
            try (Consumer<byte[]> consumer = subscribe(topic).subscribe();
                 Producer<byte[]> producer = client.newProducer().topic(topic).sendTimeout(0, TimeUnit.SECONDS).create()) {
                Transaction transaction = client.newTransaction().withTransactionTimeout(2, TimeUnit.SECONDS)
                    .build().get(20, TimeUnit.SECONDS);
                producer.newMessage(transaction).value("late".getBytes()).send();
                producer.send("after".getBytes());
                same(List.of("after"), take(consumer, 1));
                refused(Exception.class, () -> transaction.commit().get(20, TimeUnit.SECONDS));
            }
        });
    }

    static Transaction begin() throws Exception {
        return client.newTransaction().withTransactionTimeout(1, TimeUnit.MINUTES).build().get(30, TimeUnit.SECONDS);
    }

    // --- administration

    static void administration() {
        checks.put("clusters, tenants and namespaces are made, listed and removed", () -> {
            String tenant = "tenant-" + UUID.randomUUID();
            List<String> clusters = admin.clusters().getClusters();
            admin.tenants().createTenant(tenant, TenantInfo.builder().allowedClusters(new HashSet<>(clusters)).build());
            that(admin.tenants().getTenants().contains(tenant), "the tenant is listed");
            admin.namespaces().createNamespace(tenant + "/ns");
            same(List.of(tenant + "/ns"), admin.namespaces().getNamespaces(tenant));
            refused(PulsarAdminException.ConflictException.class, () -> admin.namespaces().createNamespace(tenant + "/ns"));
            admin.namespaces().deleteNamespace(tenant + "/ns");
            admin.tenants().deleteTenant(tenant);
            refused(PulsarAdminException.NotFoundException.class, () -> admin.tenants().getTenantInfo(tenant));
        });
        checks.put("policies of a namespace are set and read back", () -> {
            String namespace = "public/" + UUID.randomUUID();
            admin.namespaces().createNamespace(namespace);
            admin.namespaces().setRetention(namespace, new RetentionPolicies(60, 100));
            same(60, admin.namespaces().getRetention(namespace).getRetentionTimeInMinutes());
            admin.namespaces().setNamespaceMessageTTL(namespace, 300);
            same(300, admin.namespaces().getNamespaceMessageTTL(namespace));
            admin.namespaces().setBacklogQuota(namespace, BacklogQuota.builder().limitSize(1_000_000)
                .retentionPolicy(BacklogQuota.RetentionPolicy.producer_exception).build());
            same(1, admin.namespaces().getBacklogQuotaMap(namespace).size());
            admin.namespaces().grantPermissionOnNamespace(namespace, "role", Set.of(AuthAction.produce));
            same(Set.of("role"), admin.namespaces().getPermissions(namespace).keySet());
            that(admin.namespaces().getPolicies(namespace) != null, "policies");
            admin.namespaces().deleteNamespace(namespace);
        });
        checks.put("policies of a topic are set and read back", () -> {
            String topic = topic();
            admin.topics().createNonPartitionedTopic(topic);
            admin.topicPolicies().setMessageTTL(topic, 60);
            until(() -> Integer.valueOf(60).equals(admin.topicPolicies().getMessageTTL(topic)), "time to live");
            admin.topicPolicies().setRetention(topic, new RetentionPolicies(10, 10));
            until(() -> admin.topicPolicies().getRetention(topic) != null, "retention");
            admin.topicPolicies().removeRetention(topic);
            until(() -> admin.topicPolicies().getRetention(topic) == null, "no retention");
        });
        checks.put("topics are made, looked up, described and removed", () -> {
            String topic = topic();
            admin.topics().createPartitionedTopic(topic, 3);
            same(3, admin.topics().getPartitionedTopicMetadata(topic).partitions);
            admin.topics().updatePartitionedTopic(topic, 5);
            same(5, admin.topics().getPartitionedTopicMetadata(topic).partitions);
            that(admin.topics().getPartitionedTopicList("public/default").contains(topic), "listed");
            same(5, admin.lookups().lookupPartitionedTopic(topic).size());
            same(5, admin.topics().getPartitionedStats(topic, true).getPartitions().size());
            admin.topics().deletePartitionedTopic(topic);
            refused(PulsarAdminException.class, () -> admin.topics().getPartitionedStats(topic, true));
        });
        checks.put("subscriptions are made, skipped, reset, peeked at and removed", () -> {
            String topic = topic();
            admin.topics().createNonPartitionedTopic(topic);
            admin.topics().createSubscription(topic, "s", MessageId.earliest);
            send(topic, numbers(5));
            same(5L, admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog());
            same(3, admin.topics().peekMessages(topic, "s", 3).size());
            admin.topics().skipMessages(topic, "s", 2);
            same(3L, admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog());
            admin.topics().skipAllMessages(topic, "s");
            same(0L, admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog());
            admin.topics().resetCursor(topic, "s", System.currentTimeMillis() - 3_600_000);
            same(5L, admin.topics().getStats(topic).getSubscriptions().get("s").getMsgBacklog());
            admin.topics().expireMessagesForAllSubscriptions(topic, 3600);
            admin.topics().deleteSubscription(topic, "s");
            same(List.of(), admin.topics().getSubscriptions(topic));
            that(admin.topics().getInternalStats(topic).ledgers != null, "internal statistics");
            admin.topics().unload(topic);
            admin.topics().delete(topic);
        });
        checks.put("messages are looked at by place", () -> {
            String topic = topic();
            send(topic, "a", "b");
            same("a", text(admin.topics().examineMessage(topic, "earliest", 1)));
            same("b", text(admin.topics().examineMessage(topic, "latest", 1)));
            that(admin.topics().getLastMessageId(topic) != null, "the last message");
        });
        checks.put("the broker is healthy and says who it is", () -> {
            admin.brokers().healthcheck();
            same(1, admin.brokers().getActiveBrokers(admin.clusters().getClusters().get(0)).size());
            that(admin.brokers().getVersion().length() > 0, "version");
            that(!admin.brokers().getDynamicConfigurationNames().isEmpty(), "dynamic configuration");
            that(!admin.brokers().getRuntimeConfigurations().isEmpty(), "configuration");
        });
        checks.put("coordinators of transactions and resource groups are listed", () -> {
            List<?> coordinators = admin.transactions().listTransactionCoordinators();
            that(!coordinators.isEmpty(), "coordinators");
            same(coordinators.size(), admin.transactions().getCoordinatorStats().size());
            that(admin.transactions().getSlowTransactions(1, TimeUnit.HOURS).isEmpty(), "slow transactions");
            String name = "group-" + UUID.randomUUID();
            ResourceGroup group = new ResourceGroup();
            group.setPublishRateInMsgs(100);
            admin.resourcegroups().createResourceGroup(name, group);
            that(admin.resourcegroups().getResourceGroups().contains(name), "the group is listed");
            same(100, admin.resourcegroups().getResourceGroup(name).getPublishRateInMsgs());
            admin.resourcegroups().deleteResourceGroup(name);
            that(!admin.resourcegroups().getResourceGroups().contains(name), "the group is gone");
        });
        checks.put("topics are looked up over HTTP too", () -> {
            String topic = topic();
            send(topic, "x");
            that(admin.lookups().lookupTopic(topic).startsWith("pulsar://"), "an address");
            that(admin.lookups().getBundleRange(topic).startsWith("0x"), "a bundle");
        });
    }
}
