// The official Go client: main PULSAR_URL HTTP_URL
//
//	ok    sentence          for every check that holds
//	FAIL  sentence: why     for every one that does not; then the program ends with 1
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	"github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/apache/pulsar-client-go/pulsaradmin"
	"github.com/apache/pulsar-client-go/pulsaradmin/pkg/utils"
	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
)

var (
	client pulsar.Client
	admin  pulsaradmin.Client
)

type check struct {
	sentence string
	run      func() error
}

type point struct {
	X    int32  `json:"x" avro:"x"`
	Name string `json:"name" avro:"name"`
}

const pointSchema = `{"type":"record","name":"Point","fields":[{"name":"x","type":"int"},{"name":"name","type":"string"}]}`

func topicName() string { return "persistent://public/default/" + uuid.NewString() }

func inTime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

func subscribe(topic string, kind pulsar.SubscriptionType) (pulsar.Consumer, error) {
	return client.Subscribe(pulsar.ConsumerOptions{
		Topic: topic, SubscriptionName: "s", Type: kind,
		SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
		NackRedeliveryDelay:         100 * time.Millisecond,
	})
}

func send(topic string, contents ...string) error {
	producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic})
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, content := range contents {
		ctx, cancel := inTime()
		_, err = producer.Send(ctx, &pulsar.ProducerMessage{Payload: []byte(content), Key: content})
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func next(consumer pulsar.Consumer) (pulsar.Message, error) {
	ctx, cancel := inTime()
	defer cancel()
	return consumer.Receive(ctx)
}

func take(consumer pulsar.Consumer, want ...string) error {
	for _, content := range want {
		message, err := next(consumer)
		if err != nil {
			return err
		}
		if string(message.Payload()) != content {
			return fmt.Errorf("expected %q, found %q", content, message.Payload())
		}
		if err := consumer.Ack(message); err != nil {
			return err
		}
	}
	return nil
}

func silent(consumer pulsar.Consumer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	if message, err := consumer.Receive(ctx); err == nil {
		return fmt.Errorf("a message that nobody expected: %q", message.Payload())
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func numbers(count int) []string {
	found := make([]string, count)
	for i := range found {
		found[i] = strconv.Itoa(i)
	}
	return found
}

var checks = []check{
	{"messages come in order with what was said about them", func() error {
		topic := topicName()
		consumer, err := subscribe(topic, pulsar.Exclusive)
		if err != nil {
			return err
		}
		defer consumer.Close()
		producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic, Name: "me"})
		if err != nil {
			return err
		}
		defer producer.Close()
		ctx, cancel := inTime()
		defer cancel()
		_, err = producer.Send(ctx, &pulsar.ProducerMessage{
			Payload: []byte("x"), Key: "k", OrderingKey: "o",
			Properties: map[string]string{"a": "b"}, EventTime: time.UnixMilli(123456),
		})
		if err != nil {
			return err
		}
		message, err := next(consumer)
		if err != nil {
			return err
		}
		if message.Key() != "k" || message.OrderingKey() != "o" || message.Properties()["a"] != "b" ||
			message.EventTime().UnixMilli() != 123456 || message.ProducerName() != "me" {
			return fmt.Errorf("something is missing: %v", message)
		}
		return nil
	}},
	{"batches, compressed or not, keep their order", func() error {
		for _, kind := range []pulsar.CompressionType{pulsar.NoCompression, pulsar.LZ4, pulsar.ZLib, pulsar.ZSTD} {
			topic := topicName()
			consumer, err := subscribe(topic, pulsar.Exclusive)
			if err != nil {
				return err
			}
			producer, err := client.CreateProducer(pulsar.ProducerOptions{
				Topic: topic, CompressionType: kind, BatchingMaxMessages: 50,
			})
			if err != nil {
				return err
			}
			var failure error
			var once sync.Mutex
			for _, each := range numbers(300) {
				producer.SendAsync(context.Background(), &pulsar.ProducerMessage{Payload: []byte(each)},
					func(_ pulsar.MessageID, _ *pulsar.ProducerMessage, err error) {
						once.Lock()
						failure = first(failure, err)
						once.Unlock()
					})
			}
			if err := first(producer.Flush(), take(consumer, numbers(300)...), failure); err != nil {
				return fmt.Errorf("%v: %w", kind, err)
			}
			producer.Close()
			consumer.Close()
		}
		return nil
	}},
	{"a message larger than the broker takes comes in chunks", func() error {
		topic := topicName()
		consumer, err := subscribe(topic, pulsar.Exclusive)
		if err != nil {
			return err
		}
		defer consumer.Close()
		producer, err := client.CreateProducer(pulsar.ProducerOptions{
			Topic: topic, DisableBatching: true, EnableChunking: true,
		})
		if err != nil {
			return err
		}
		defer producer.Close()
		content := strings.Repeat("0123456789abcdef", 600_000)
		ctx, cancel := inTime()
		defer cancel()
		if _, err := producer.Send(ctx, &pulsar.ProducerMessage{Payload: []byte(content)}); err != nil {
			return err
		}
		message, err := next(consumer)
		if err != nil {
			return err
		}
		if string(message.Payload()) != content {
			return errors.New("the contents differ")
		}
		return consumer.Ack(message)
	}},
	{"shared, failover and key_shared subscriptions divide what there is", func() error {
		for _, kind := range []pulsar.SubscriptionType{pulsar.Shared, pulsar.Failover, pulsar.KeyShared} {
			topic := topicName()
			one, err := subscribe(topic, kind)
			if err != nil {
				return err
			}
			two, err := subscribe(topic, kind)
			if err != nil {
				return err
			}
			if err := send(topic, numbers(40)...); err != nil {
				return err
			}
			got := map[string]bool{}
			end := time.Now().Add(20 * time.Second)
			for len(got) < 40 && time.Now().Before(end) {
				for _, consumer := range []pulsar.Consumer{one, two} {
					ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
					message, err := consumer.Receive(ctx)
					cancel()
					if err == nil {
						if got[string(message.Payload())] {
							return fmt.Errorf("%v: twice %s", kind, message.Payload())
						}
						got[string(message.Payload())] = true
						if err := consumer.Ack(message); err != nil {
							return err
						}
					}
				}
			}
			if len(got) != 40 {
				return fmt.Errorf("%v: %d of 40", kind, len(got))
			}
			one.Close()
			two.Close()
		}
		return nil
	}},
	{"a negative acknowledgement brings a message again, and then to the dead letter topic", func() error {
		topic := topicName()
		consumer, err := client.Subscribe(pulsar.ConsumerOptions{
			Topic: topic, SubscriptionName: "s", Type: pulsar.Shared,
			NackRedeliveryDelay: 50 * time.Millisecond,
			DLQ:                 &pulsar.DLQPolicy{MaxDeliveries: 2, DeadLetterTopic: topic + "-dead"},
		})
		if err != nil {
			return err
		}
		defer consumer.Close()
		dead, err := subscribe(topic+"-dead", pulsar.Exclusive)
		if err != nil {
			return err
		}
		defer dead.Close()
		if err := send(topic, "poison"); err != nil {
			return err
		}
		for count := 0; count < 2; count++ {
			message, err := next(consumer)
			if err != nil {
				return err
			}
			if int(message.RedeliveryCount()) != count {
				return fmt.Errorf("redelivery count %d, expected %d", message.RedeliveryCount(), count)
			}
			consumer.Nack(message)
		}
		return take(dead, "poison")
	}},
	{"a reader and a seek begin where they are told", func() error {
		topic := topicName()
		if err := send(topic, numbers(5)...); err != nil {
			return err
		}
		reader, err := client.CreateReader(pulsar.ReaderOptions{Topic: topic, StartMessageID: pulsar.EarliestMessageID()})
		if err != nil {
			return err
		}
		defer reader.Close()
		var second pulsar.MessageID
		count := 0
		for reader.HasNext() {
			ctx, cancel := inTime()
			message, err := reader.Next(ctx)
			cancel()
			if err != nil {
				return err
			}
			if count == 1 {
				second = message.ID()
			}
			count++
		}
		if count != 5 {
			return fmt.Errorf("%d messages of 5", count)
		}
		consumer, err := subscribe(topic, pulsar.Exclusive)
		if err != nil {
			return err
		}
		defer consumer.Close()
		return first(take(consumer, "0"), consumer.Seek(second), take(consumer, "2", "3"))
	}},
	{"partitions and patterns are consumed as one", func() error {
		topic := topicName()
		name, err := utils.GetTopicName(topic)
		if err != nil {
			return err
		}
		if err := admin.Topics().Create(*name, 3); err != nil {
			return err
		}
		consumer, err := client.Subscribe(pulsar.ConsumerOptions{
			TopicsPattern: topic + ".*", SubscriptionName: "s",
			SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
		})
		if err != nil {
			return err
		}
		defer consumer.Close()
		if err := send(topic, numbers(12)...); err != nil {
			return err
		}
		var found []string
		for range 12 {
			message, err := next(consumer)
			if err != nil {
				return err
			}
			found = append(found, string(message.Payload()))
			if err := consumer.Ack(message); err != nil {
				return err
			}
		}
		sort.Strings(found)
		want := numbers(12)
		sort.Strings(want)
		if strings.Join(found, " ") != strings.Join(want, " ") {
			return fmt.Errorf("found %v", found)
		}
		return nil
	}},
	{"a delayed message waits for its time", func() error {
		topic := topicName()
		consumer, err := subscribe(topic, pulsar.Shared)
		if err != nil {
			return err
		}
		defer consumer.Close()
		producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic})
		if err != nil {
			return err
		}
		defer producer.Close()
		ctx, cancel := inTime()
		defer cancel()
		sent := time.Now()
		if _, err := producer.Send(ctx, &pulsar.ProducerMessage{Payload: []byte("late"), DeliverAfter: 2 * time.Second}); err != nil {
			return err
		}
		if err := take(consumer, "late"); err != nil {
			return err
		}
		if time.Since(sent) < time.Second {
			return errors.New("it came too early")
		}
		return nil
	}},
	{"objects go as JSON and as Avro and come back", func() error {
		for _, schema := range []pulsar.Schema{
			pulsar.NewJSONSchema(pointSchema, nil), pulsar.NewAvroSchema(pointSchema, nil),
		} {
			topic := topicName()
			producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic, Schema: schema})
			if err != nil {
				return err
			}
			consumer, err := client.Subscribe(pulsar.ConsumerOptions{
				Topic: topic, SubscriptionName: "s", Schema: schema,
				SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
			})
			if err != nil {
				return err
			}
			ctx, cancel := inTime()
			_, err = producer.Send(ctx, &pulsar.ProducerMessage{Value: &point{3, "three"}})
			cancel()
			if err != nil {
				return err
			}
			message, err := next(consumer)
			if err != nil {
				return err
			}
			var found point
			if err := message.GetSchemaValue(&found); err != nil {
				return err
			}
			if found != (point{3, "three"}) {
				return fmt.Errorf("found %v", found)
			}
			info, err := admin.Schemas().GetSchemaInfo(topic)
			if err != nil {
				return err
			}
			if info.Type != "JSON" && info.Type != "AVRO" {
				return fmt.Errorf("the schema is %v", info.Type)
			}
			producer.Close()
			consumer.Close()
		}
		return nil
	}},
	{"a schema that does not fit is refused", func() error {
		topic := topicName()
		producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic, Schema: pulsar.NewAvroSchema(pointSchema, nil)})
		if err != nil {
			return err
		}
		producer.Close()
		clash := strings.ReplaceAll(pointSchema, `"int"`, `"string"`)
		if _, err = client.CreateProducer(pulsar.ProducerOptions{Topic: topic, Schema: pulsar.NewAvroSchema(clash, nil)}); err == nil {
			return errors.New("it was taken")
		}
		return nil
	}},
	{"a transaction is seen when it is committed and not when it is aborted", func() error {
		topic := topicName()
		consumer, err := subscribe(topic, pulsar.Exclusive)
		if err != nil {
			return err
		}
		defer consumer.Close()
		producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic, SendTimeout: -1})
		if err != nil {
			return err
		}
		defer producer.Close()
		for _, commit := range []bool{false, true} {
			transaction, err := client.NewTransaction(time.Minute)
			if err != nil {
				return err
			}
			ctx, cancel := inTime()
			defer cancel()
			content := fmt.Sprintf("commit %v", commit)
			if _, err := producer.Send(ctx, &pulsar.ProducerMessage{Payload: []byte(content), Transaction: transaction}); err != nil {
				return err
			}
			if err := silent(consumer); err != nil {
				return err
			}
			if commit {
				err = transaction.Commit(ctx)
			} else {
				err = transaction.Abort(ctx)
			}
			if err != nil {
				return err
			}
		}
		return first(take(consumer, "commit true"), silent(consumer))
	}},
	{"an acknowledgement in a transaction counts when it is committed", func() error {
		topic := topicName()
		if err := send(topic, "1", "2"); err != nil {
			return err
		}
		consumer, err := subscribe(topic, pulsar.Shared)
		if err != nil {
			return err
		}
		for _, commit := range []bool{false, true} {
			transaction, err := client.NewTransaction(time.Minute)
			if err != nil {
				return err
			}
			message, err := next(consumer)
			if err != nil {
				return err
			}
			ctx, cancel := inTime()
			defer cancel()
			if err := consumer.AckWithTxn(message, transaction); err != nil {
				return err
			}
			if commit {
				err = transaction.Commit(ctx)
			} else {
				err = transaction.Abort(ctx)
			}
			if err != nil {
				return err
			}
		}
		consumer.Close()
		again, err := subscribe(topic, pulsar.Shared)
		if err != nil {
			return err
		}
		defer again.Close()
		message, err := next(again)
		if err != nil {
			return err
		}
		return first(again.Ack(message), silent(again))
	}},
	{"a table view follows its topic", func() error {
		topic := topicName()
		text := ""
		producer, err := client.CreateProducer(pulsar.ProducerOptions{Topic: topic, Schema: pulsar.NewStringSchema(nil)})
		if err != nil {
			return err
		}
		defer producer.Close()
		for _, key := range []string{"a", "b", "a"} {
			ctx, cancel := inTime()
			_, err = producer.Send(ctx, &pulsar.ProducerMessage{Value: key, Key: key})
			cancel()
			if err != nil {
				return err
			}
		}
		view, err := client.CreateTableView(pulsar.TableViewOptions{
			Topic: topic, Schema: pulsar.NewStringSchema(nil), SchemaValueType: reflect.TypeOf(&text),
		})
		if err != nil {
			return err
		}
		defer view.Close()
		if view.Size() != 2 {
			return fmt.Errorf("%d keys, expected 2", view.Size())
		}
		return nil
	}},
	{"tenants, namespaces, topics and subscriptions are administered", func() error {
		tenant := uuid.NewString()
		clusters, err := admin.Clusters().List()
		if err != nil {
			return err
		}
		topic := "persistent://" + tenant + "/ns/t"
		name, err := utils.GetTopicName(topic)
		if err != nil {
			return err
		}
		if err := first(
			admin.Tenants().Create(utils.TenantData{Name: tenant, AllowedClusters: clusters}),
			admin.Namespaces().CreateNamespace(tenant+"/ns"),
			admin.Topics().Create(*name, 0),
			admin.Subscriptions().Create(*name, "s", utils.Earliest),
			send(topic, numbers(5)...),
		); err != nil {
			return err
		}
		stats, err := admin.Topics().GetStats(*name)
		if err != nil {
			return err
		}
		if backlog := stats.Subscriptions["s"].MsgBacklog; backlog != 5 {
			return fmt.Errorf("a backlog of %d, expected 5", backlog)
		}
		peeked, err := admin.Subscriptions().PeekMessages(*name, "s", 2)
		if err != nil {
			return err
		}
		if len(peeked) != 2 {
			return fmt.Errorf("%d messages peeked at, expected 2", len(peeked))
		}
		namespace, err := utils.GetNamespaceName(tenant + "/ns")
		if err != nil {
			return err
		}
		return first(
			admin.Namespaces().SetNamespaceMessageTTL(namespace.String(), 60),
			admin.Subscriptions().ClearBacklog(*name, "s"),
			admin.Subscriptions().Delete(*name, "s"),
			admin.Topics().Delete(*name, true, true),
			admin.Namespaces().DeleteNamespace(tenant+"/ns"),
			admin.Tenants().Delete(tenant),
		)
	}},
	{"the broker is healthy", func() error { return admin.Brokers().HealthCheck() }},
}

func main() {
	silence := logrus.New()
	silence.SetOutput(io.Discard)
	var err error
	client, err = pulsar.NewClient(pulsar.ClientOptions{
		URL: os.Args[1], EnableTransaction: true, OperationTimeout: 20 * time.Second,
		Logger: log.NewLoggerWithLogrus(silence),
	})
	if err == nil {
		admin, err = pulsaradmin.NewClient(&pulsaradmin.Config{WebServiceURL: os.Args[2]})
	}
	if err != nil {
		fmt.Println("FAIL  the client connects:", err)
		os.Exit(1)
	}
	results := make([]string, len(checks))
	var all sync.WaitGroup
	places := make(chan bool, 6)
	for i, each := range checks {
		all.Add(1)
		go func() {
			defer all.Done()
			places <- true
			defer func() { <-places }()
			done := make(chan error, 1)
			go func() { done <- each.run() }()
			select {
			case err := <-done:
				if err != nil {
					results[i] = strings.ReplaceAll(err.Error(), "\n", " ")
				}
			case <-time.After(90 * time.Second):
				results[i] = "it takes longer than 90 s"
			}
		}()
	}
	all.Wait()
	failed := 0
	for i, each := range checks {
		if results[i] == "" {
			fmt.Println("ok   ", each.sentence)
		} else {
			failed++
			fmt.Printf("FAIL  %s: %s\n", each.sentence, results[i])
		}
	}
	fmt.Printf("%d passed, %d failed\n", len(checks)-failed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
