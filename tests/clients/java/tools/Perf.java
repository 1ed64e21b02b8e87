// The real pulsar-perf, but for its first step: Perf COMMAND ARGUMENTS...
//
// Its main class loads every command there is, among them some that need Apache Pulsar's broker.

import java.util.Arrays;
import java.util.Map;
import org.apache.pulsar.proxy.socket.client.PerformanceClient;
import org.apache.pulsar.testclient.CmdBase;
import org.apache.pulsar.testclient.PerformanceConsumer;
import org.apache.pulsar.testclient.PerformanceProducer;
import org.apache.pulsar.testclient.PerformanceReader;
import org.apache.pulsar.testclient.PerformanceTransaction;

public class Perf {
    interface Maker {
        CmdBase make() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Maker> commands = Map.of(
            "produce", PerformanceProducer::new,
            "consume", PerformanceConsumer::new,
            "read", PerformanceReader::new,
            "transaction", PerformanceTransaction::new,
            "websocket-producer", PerformanceClient::new);
        boolean done = commands.get(arguments[0]).make()
            .run(Arrays.copyOfRange(arguments, 1, arguments.length));
        Runtime.getRuntime().halt(done ? 0 : 1);
    }
}
