// The real pulsar-admin, some sixty of its calls in a row: AdminCalls client.conf
//
//   ok    pulsar-admin topics stats ...
//   FAIL  pulsar-admin topics stats ...: why
//
// The tool is called inside this program, as its main method would: starting it anew for each call
// takes seconds. It has to lie in the tool's package for that.

package org.apache.pulsar.admin.cli;

import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.UUID;

public class AdminCalls {
    static final PrintStream OUT = System.out;
    static Properties properties = new Properties();
    static String configuration;
    static int passed;
    static int failed;

    /** Call the tool; it must succeed, and print what is expected. */
    static void call(String expected, String... arguments) {
        judge(true, expected, arguments);
    }

    /** Call the tool; it must fail, and say what is expected. */
    static void refused(String expected, String... arguments) {
        judge(false, expected, arguments);
    }

    private static void judge(boolean succeeds, String expected, String... arguments) {
        String sentence = (succeeds ? "" : "refused: ") + "pulsar-admin " + String.join(" ", arguments);
        ByteArrayOutputStream told = new ByteArrayOutputStream();
        PrintStream stream = new PrintStream(told, true);
        boolean done;
        String why = "";
        System.setOut(stream);
        System.setErr(stream);
        try {
            done = new PulsarAdminTool(properties).run(arguments);
        } catch (Throwable error) {
            done = false;
            why = String.valueOf(error);
        } finally {
            System.setOut(OUT);
        }
        String text = told.toString().trim();
        if (done == succeeds && text.contains(expected)) {
            passed++;
            OUT.println("ok    " + sentence);
        } else {
            failed++;
            OUT.println("FAIL  " + sentence + ": expected " + expected + ", found " + why
                + text.substring(0, Math.min(text.length(), 400)).replace('\n', ' '));
        }
    }

    public static void main(String[] arguments) throws Exception {
        PulsarAdminTool.setAllowSystemExit(false);
        configuration = arguments[0];
        try (FileInputStream file = new FileInputStream(configuration)) {
            properties.load(file);
        }
        String tenant = "t" + UUID.randomUUID().toString().substring(0, 8);
        String namespace = tenant + "/ns";
        String topic = "persistent://" + namespace + "/plain";
        String wide = "persistent://" + namespace + "/wide";

        call("standalone", "clusters", "list");
        call("serviceUrl", "clusters", "get", "standalone");
        call("", "brokers", "healthcheck");
        call("ok", "brokers", "healthcheck");
        call("", "brokers", "list", "standalone");
        call("", "brokers", "leader-broker");
        call("", "brokers", "list-dynamic-config");
        call("", "brokers", "get-all-dynamic-config");
        call("", "brokers", "get-runtime-config");
        call("", "brokers", "version");
        call("", "broker-stats", "topics");
        call("", "brokers", "update-dynamic-config", "--config", "isAllowAutoUpdateSchemaEnabled", "--value", "true");
        call("isAllowAutoUpdateSchemaEnabled", "brokers", "get-all-dynamic-config");
        call("", "brokers", "delete-dynamic-config", "--config", "isAllowAutoUpdateSchemaEnabled");
        refused("", "brokers", "update-dynamic-config", "--config", "nonsense", "--value", "1");
        call("", "transactions", "coordinators-list");
        call("lowWaterMark", "transactions", "coordinator-stats");
        call("", "transactions", "slow-transactions", "-t", "10s");
        call("", "resourcegroups", "create", tenant, "--msg-publish-rate", "100", "--byte-publish-rate", "1000000",
            "--msg-dispatch-rate", "100", "--byte-dispatch-rate", "1000000");
        call(tenant, "resourcegroups", "list");
        call("100", "resourcegroups", "get", tenant);
        call("", "resourcegroups", "delete", tenant);

        call("", "tenants", "create", tenant, "--admin-roles", "boss", "--allowed-clusters", "standalone");
        call(tenant, "tenants", "list");
        call("boss", "tenants", "get", tenant);
        call("", "tenants", "update", tenant, "--admin-roles", "chief");
        call("chief", "tenants", "get", tenant);
        refused("exist", "tenants", "create", tenant);

        call("", "namespaces", "create", namespace);
        call(namespace, "namespaces", "list", tenant);
        call("bundles", "namespaces", "policies", namespace);
        call("", "namespaces", "set-retention", namespace, "--size", "100M", "--time", "1h");
        call("60", "namespaces", "get-retention", namespace);
        call("", "namespaces", "set-message-ttl", namespace, "--messageTTL", "3600");
        call("3600", "namespaces", "get-message-ttl", namespace);
        call("", "namespaces", "set-backlog-quota", namespace, "--limit", "50M", "--policy", "producer_exception");
        call("producer_exception", "namespaces", "get-backlog-quotas", namespace);
        call("", "namespaces", "set-deduplication", namespace, "--enable");
        call("true", "namespaces", "get-deduplication", namespace);
        call("", "namespaces", "set-max-producers-per-topic", namespace, "-p", "50");
        call("50", "namespaces", "get-max-producers-per-topic", namespace);
        call("", "namespaces", "set-schema-compatibility-strategy", "-c", "BACKWARD", namespace);
        call("BACKWARD", "namespaces", "get-schema-compatibility-strategy", namespace);
        call("", "namespaces", "grant-permission", namespace, "--role", "app", "--actions", "produce,consume");
        call("app", "namespaces", "permissions", namespace);
        call("", "namespaces", "revoke-permission", namespace, "--role", "app");
        call("", "namespaces", "set-auto-topic-creation", namespace, "--enable", "--type", "non-partitioned");
        call("boundaries", "namespaces", "bundles", namespace);
        for (String[] each : new String[][] {
            {"dispatch-rate", "-md", "100"}, {"subscription-dispatch-rate", "-md", "100"},
            {"publish-rate", "-m", "100"}, {"subscribe-rate", "-sr", "100"},
            {"persistence", "-e", "1", "-w", "1", "-a", "1", "-r", "1"},
            {"max-consumers-per-topic", "-c", "7"}, {"max-consumers-per-subscription", "-c", "7"},
            {"max-unacked-messages-per-consumer", "-c", "7"}, {"max-unacked-messages-per-subscription", "-c", "7"},
            {"max-subscriptions-per-topic", "-m", "7"}, {"max-topics-per-namespace", "-t", "7"},
            {"subscription-expiration-time", "-t", "7"}, {"compaction-threshold", "-t", "7M"},
            {"delayed-delivery", "--enable", "-t", "1s"}, {"deduplication-snapshot-interval", "-i", "7"},
            {"inactive-topic-policies", "-e", "-t", "7s", "-m", "delete_when_no_subscriptions"},
            {"auto-subscription-creation", "--enable"}, {"subscription-types-enabled", "-t", "Shared,Exclusive"}}) {
            String[] set = new String[each.length + 2];
            set[0] = "namespaces";
            set[1] = "set-" + each[0];
            System.arraycopy(each, 1, set, 2, each.length - 1);
            set[set.length - 1] = namespace;
            call("", set);
            call("", "namespaces", "get-" + each[0], namespace);
            call("", "namespaces", "remove-" + each[0], namespace);
        }

        call("", "topics", "create", topic);
        call("", "topics", "create-partitioned-topic", wide, "--partitions", "2");
        call(topic, "topics", "list", namespace);
        call(wide, "topics", "list-partitioned-topics", namespace);
        call("2", "topics", "get-partitioned-topic-metadata", wide);
        call("", "topics", "update-partitioned-topic", wide, "--partitions", "3");
        call("pulsar://", "topics", "lookup", topic);
        call("0x", "topics", "bundle-range", topic);
        call("", "topics", "create-subscription", topic, "-s", "sub", "-m", "earliest");
        call("sub", "topics", "subscriptions", topic);
        call("msgInCounter", "topics", "stats", topic);
        call("\"partitions\"", "topics", "partitioned-stats", wide);
        call("ledgers", "topics", "stats-internal", topic);
        for (String[] each : new String[][] {
            {"dispatch-rate", "-md", "100"}, {"subscription-dispatch-rate", "-md", "100"},
            {"publish-rate", "-m", "100"}, {"subscribe-rate", "-sr", "100"}, {"max-producers", "-p", "7"},
            {"max-consumers", "-c", "7"}, {"max-consumers-per-subscription", "-c", "7"},
            {"max-unacked-messages-per-consumer", "-m", "7"}, {"max-unacked-messages-per-subscription", "-m", "7"},
            {"max-subscriptions-per-topic", "-s", "7"}, {"max-message-size", "-m", "7000"},
            {"compaction-threshold", "-t", "7M"}, {"delayed-delivery", "--enable", "-t", "1s"},
            {"deduplication", "-e"}, {"inactive-topic-policies", "-e", "-t", "7s", "-m", "delete_when_no_subscriptions"},
            {"backlog-quota", "-l", "1M", "-p", "producer_exception"}, {"auto-subscription-creation", "--enable"},
            {"persistence", "-e", "1", "-w", "1", "-a", "1", "-r", "1"}, {"subscription-types-enabled", "-t", "Shared"},
            {"schema-compatibility-strategy", "-s", "BACKWARD"}}) {
            String[] set = new String[each.length + 2];
            set[0] = "topicPolicies";
            set[1] = "set-" + each[0];
            set[2] = topic;
            System.arraycopy(each, 1, set, 3, each.length - 1);
            call("", set);
            call("", "topicPolicies", "get-" + each[0], topic);
            call("", "topicPolicies", "remove-" + each[0], topic);
        }
        call("", "topics", "set-message-ttl", topic, "-t", "60");
        call("60", "topics", "get-message-ttl", topic);
        call("", "topics", "set-retention", topic, "--size", "80M", "--time", "10m");
        call("10", "topics", "get-retention", topic);
        call("", "topics", "skip", topic, "-s", "sub", "-n", "1");
        call("", "topics", "clear-backlog", topic, "-s", "sub");
        call("", "topics", "reset-cursor", topic, "-s", "sub", "--time", "1h");
        call("", "topics", "expire-messages", topic, "-s", "sub", "-t", "3600");
        call("", "topics", "last-message-id", topic);
        call("", "topics", "compact", topic);
        call("", "topics", "compaction-status", topic);
        call("", "topics", "unload", topic);

        Path schema = Files.createTempFile("schema", ".json");
        Files.writeString(schema, "{\"type\": \"AVRO\", \"properties\": {}, \"schema\": \"{\\\"type\\\":\\\"record\\\","
            + "\\\"name\\\":\\\"P\\\",\\\"fields\\\":[{\\\"name\\\":\\\"x\\\",\\\"type\\\":\\\"int\\\"}]}\"}");
        call("", "schemas", "upload", topic, "--filename", schema.toString());
        call("AVRO", "schemas", "get", topic);
        call("", "schemas", "delete", topic);

        call("", "topics", "unsubscribe", topic, "-s", "sub");
        call("", "topics", "terminate", topic);
        call("", "topics", "delete", topic, "-f");
        call("", "topics", "delete-partitioned-topic", wide);
        refused("", "topics", "stats", topic);
        call("", "namespaces", "delete", namespace);
        call("", "tenants", "delete", tenant);
        OUT.println(passed + " passed, " + failed + " failed");
        OUT.flush();
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }
}
