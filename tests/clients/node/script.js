// pulsar-flex, an implementation of Pulsar's protocol in JavaScript that shares no code with the
// official ones: node script.js PULSAR_HOST:PORT HTTP_URL
//
// Its producer and consumer do what they can. For schemas and transactions, which they cannot,
// its own protocol definition is put into frames by hand.

const net = require('net');
const { randomUUID } = require('crypto');
const { Producer, Consumer } = require('pulsar-flex');
const pb = require('pulsar-flex/src/commands/protocol/pulsar/pulsar_pb');

const [address, http] = process.argv.slice(2);
const discoveryServers = [address];
const [host, port] = address.split(':');
const quiet = { logLevel: 0, logCreator: () => () => {} };
const WAIT_MS = 15000;

const checks = [];
const check = (sentence, work) => checks.push({ sentence, work });
const topicOf = () => `persistent://public/default/${randomUUID()}`;
const that = (holds, what) => {
  if (!holds) throw new Error(what);
};
const same = (expected, found) =>
  that(
    JSON.stringify(expected) === JSON.stringify(found),
    `expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`
  );
const inTime = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not in time`)), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

async function producerOn(topic, more = {}) {
  const producer = new Producer({ topic, discoveryServers, ...quiet, ...more });
  await inTime(producer.create(), 'a producer');
  return producer;
}

async function consumerOn(topic, more = {}) {
  const consumer = new Consumer({
    topic,
    discoveryServers,
    subscription: 's',
    subType: Consumer.SUB_TYPES.EXCLUSIVE,
    consumerName: randomUUID(),
    initialPosition: Consumer.INITIAL_POSITION.EARLIEST,
    ...quiet,
    ...more,
  });
  await inTime(consumer.subscribe(), 'a consumer');
  return consumer;
}

// Run a consumer until it got so many messages.
function receive(consumer, count, handle = async (message) => message.ack()) {
  const received = [];
  return inTime(
    new Promise((resolve, reject) => {
      consumer
        .run({
          autoAck: false,
          onMessage: async (message) => {
            received.push(message);
            await handle(message, received.length);
            if (received.length === count) resolve(received);
          },
        })
        .catch(reject);
    }),
    `${count} messages`
  );
}

const text = (message) => Buffer.from(message.message).toString();

// --- what the library can do

check('messages come in the order in which they were sent, with their properties', async () => {
  const topic = topicOf();
  const consumer = await consumerOn(topic);
  const producer = await producerOn(topic);
  for (let i = 0; i < 20; i++) {
    await inTime(producer.sendMessage({ payload: `${i}`, properties: { n: `${i}` } }), 'a receipt');
  }
  const received = await receive(consumer, 20);
  same([...Array(20).keys()].map(String), received.map(text));
  same({ n: '7' }, received[7].properties);
  await producer.close();
});

check('batches come as their messages', async () => {
  const topic = topicOf();
  const consumer = await consumerOn(topic);
  const producer = await producerOn(topic);
  const messages = [...Array(10).keys()].map((i) => ({ payload: `${i}`, properties: { n: `${i}` } }));
  await inTime(producer.sendBatch({ messages }), 'a receipt');
  same([...Array(10).keys()].map(String), (await receive(consumer, 10)).map(text));
  await producer.close();
});

check('a shared subscription gives each message to one of its consumers', async () => {
  const topic = topicOf();
  const shared = { subType: Consumer.SUB_TYPES.SHARED, receiveQueueSize: 10 };
  const consumers = [await consumerOn(topic, shared), await consumerOn(topic, shared)];
  const producer = await producerOn(topic);
  const got = new Set();
  let done;
  const all = new Promise((resolve) => (done = resolve));
  for (const consumer of consumers) {
    await consumer.run({
      autoAck: true,
      onMessage: async (message) => {
        that(!got.has(text(message)), `twice: ${text(message)}`);
        got.add(text(message));
        if (got.size === 40) done();
      },
    });
  }
  for (let i = 0; i < 40; i++) await producer.sendMessage({ payload: `${i}`, properties: {} });
  await inTime(all, '40 messages');
  await producer.close();
});

check('what is acknowledged does not come again, what is not does', async () => {
  const topic = topicOf();
  const first = await consumerOn(topic, { subType: Consumer.SUB_TYPES.SHARED });
  const producer = await producerOn(topic);
  for (let i = 0; i < 4; i++) await producer.sendMessage({ payload: `${i}`, properties: {} });
  await receive(first, 4, async (message, number) => {
    if (number % 2) await message.ack();
  });
  await first.unsubscribe(); // to this library that is a consumer that closes, and stays away
  const second = await consumerOn(topic, { subType: Consumer.SUB_TYPES.SHARED });
  same(['1', '3'], (await receive(second, 2)).map(text).sort());
  await producer.close();
});

check('an exclusive producer keeps others out', async () => {
  const topic = topicOf();
  const producer = await producerOn(topic, { producerAccessMode: Producer.ACCESS_MODES.EXCLUSIVE });
  const other = new Producer({
    topic,
    discoveryServers,
    ...quiet,
    producerAccessMode: Producer.ACCESS_MODES.EXCLUSIVE,
  });
  const outcome = await inTime(
    other.create().then(() => 'created', (error) => error.name),
    'a refusal'
  );
  that(outcome !== 'created', 'two exclusive producers');
  await producer.close();
});

// --- admin REST, with what Node has

async function admin(method, path, body) {
  const answer = await fetch(http + path, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const told = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${told}`);
  return told ? JSON.parse(told) : null;
}

check('tenants, namespaces and topics are made and removed over HTTP', async () => {
  const tenant = randomUUID();
  const clusters = await admin('GET', '/admin/v2/clusters');
  await admin('PUT', `/admin/v2/tenants/${tenant}`, { adminRoles: [], allowedClusters: clusters });
  await admin('PUT', `/admin/v2/namespaces/${tenant}/ns`);
  const topic = `persistent://${tenant}/ns/t`;
  const place = `/admin/v2/persistent/${tenant}/ns/t`;
  await admin('PUT', `${place}/partitions`, 2);
  same(2, (await admin('GET', `${place}/partitions`)).partitions);
  const consumer = await consumerOn(`${topic}-partition-0`);
  const producer = await producerOn(`${topic}-partition-0`);
  await producer.sendMessage({ payload: 'x', properties: {} });
  same(1, (await admin('GET', `${place}-partition-0/stats`)).subscriptions.s.msgBacklog);
  await receive(consumer, 1);
  await producer.close();
  await consumer.unsubscribe();
  await admin('DELETE', `${place}/partitions?force=true`);
  await admin('DELETE', `/admin/v2/namespaces/${tenant}/ns`);
  await admin('DELETE', `/admin/v2/tenants/${tenant}`);
});

// --- schemas and transactions, by the library's protocol definition

class Raw {
  static async open() {
    const raw = new Raw();
    raw.buffer = Buffer.alloc(0);
    raw.waiting = [];
    raw.heard = [];
    raw.socket = net.connect(Number(port), host);
    raw.socket.on('data', (data) => raw.take(data));
    const connect = new pb.CommandConnect();
    connect.setClientVersion('raw');
    connect.setProtocolVersion(19);
    await raw.ask('CONNECT', 'setConnect', connect, 'CONNECTED');
    return raw;
  }

  take(data) {
    this.buffer = Buffer.concat([this.buffer, data]);
    while (this.buffer.length >= 4 && this.buffer.length >= 4 + this.buffer.readUInt32BE(0)) {
      const size = this.buffer.readUInt32BE(0);
      const commandSize = this.buffer.readUInt32BE(4);
      const command = pb.BaseCommand.deserializeBinary(this.buffer.subarray(8, 8 + commandSize));
      this.buffer = this.buffer.subarray(4 + size);
      this.heard.push(command);
    }
    this.waiting.forEach((look) => look());
  }

  send(type, set, command) {
    const base = new pb.BaseCommand();
    base.setType(pb.BaseCommand.Type[type]);
    base[set](command);
    const content = Buffer.from(base.serializeBinary());
    const head = Buffer.alloc(8);
    head.writeUInt32BE(content.length + 4, 0);
    head.writeUInt32BE(content.length, 4);
    this.socket.write(Buffer.concat([head, content]));
  }

  ask(type, set, command, answer) {
    this.send(type, set, command);
    return inTime(
      new Promise((resolve, reject) => {
        const look = () => {
          const wanted = [pb.BaseCommand.Type[answer], pb.BaseCommand.Type.ERROR];
          const index = this.heard.findIndex((each) => wanted.includes(each.getType()));
          if (index < 0) return;
          const [found] = this.heard.splice(index, 1);
          this.waiting = this.waiting.filter((each) => each !== look);
          if (found.getType() === pb.BaseCommand.Type.ERROR) {
            reject(new Error(found.getError().getMessage()));
          } else resolve(found);
        };
        this.waiting.push(look);
        look();
      }),
      answer
    );
  }
}

check('a schema is registered and read back', async () => {
  const topic = topicOf();
  await (await producerOn(topic)).close();
  const raw = await Raw.open();
  const definition = JSON.stringify({
    type: 'record',
    name: 'Point',
    fields: [{ name: 'x', type: 'int' }],
  });
  const schema = new pb.Schema();
  schema.setName('point');
  schema.setType(pb.Schema.Type.AVRO);
  schema.setSchemaData(Buffer.from(definition).toString('base64'));
  const create = new pb.CommandGetOrCreateSchema();
  create.setRequestId(1);
  create.setTopic(topic);
  create.setSchema(schema);
  const made = (
    await raw.ask('GET_OR_CREATE_SCHEMA', 'setGetorcreateschema', create, 'GET_OR_CREATE_SCHEMA_RESPONSE')
  ).getGetorcreateschemaresponse();
  that(!made.hasErrorCode(), made.getErrorMessage());
  const get = new pb.CommandGetSchema();
  get.setRequestId(2);
  get.setTopic(topic);
  const found = (await raw.ask('GET_SCHEMA', 'setGetschema', get, 'GET_SCHEMA_RESPONSE')).getGetschemaresponse();
  that(!found.hasErrorCode(), found.getErrorMessage());
  same(definition, Buffer.from(found.getSchema().getSchemaData_asU8()).toString());
  schema.setSchemaData(
    Buffer.from(definition.replace('"int"', '"string"')).toString('base64')
  );
  create.setRequestId(3);
  const refused = (
    await raw.ask('GET_OR_CREATE_SCHEMA', 'setGetorcreateschema', create, 'GET_OR_CREATE_SCHEMA_RESPONSE')
  ).getGetorcreateschemaresponse();
  same(pb.ServerError.INCOMPATIBLESCHEMA, refused.getErrorCode());
  raw.socket.destroy();
});

// This definition of the protocol is from before coordinators had to be greeted.
check('a transaction is opened, told of a topic, and ended', async () => {
  const topic = topicOf();
  await (await producerOn(topic)).close();
  const raw = await Raw.open();
  for (const [action, request] of [
    ['COMMIT', 10],
    ['ABORT', 20],
  ]) {
    const open = new pb.CommandNewTxn();
    open.setRequestId(request);
    open.setTxnTtlSeconds(60000);
    open.setTcId(0);
    const opened = (await raw.ask('NEW_TXN', 'setNewtxn', open, 'NEW_TXN_RESPONSE')).getNewtxnresponse();
    that(!opened.hasError(), opened.getMessage());
    const add = new pb.CommandAddPartitionToTxn();
    add.setRequestId(request + 1);
    add.setTxnidMostBits(opened.getTxnidMostBits());
    add.setTxnidLeastBits(opened.getTxnidLeastBits());
    add.setPartitionsList([topic]);
    const added = (
      await raw.ask('ADD_PARTITION_TO_TXN', 'setAddpartitiontotxn', add, 'ADD_PARTITION_TO_TXN_RESPONSE')
    ).getAddpartitiontotxnresponse();
    that(!added.hasError(), added.getMessage());
    const end = new pb.CommandEndTxn();
    end.setRequestId(request + 2);
    end.setTxnidMostBits(opened.getTxnidMostBits());
    end.setTxnidLeastBits(opened.getTxnidLeastBits());
    end.setTxnAction(pb.TxnAction[action]);
    const ended = (await raw.ask('END_TXN', 'setEndtxn', end, 'END_TXN_RESPONSE')).getEndtxnresponse();
    that(!ended.hasError(), ended.getMessage());
  }
  raw.socket.destroy();
});

(async () => {
  let failed = 0;
  for (const { sentence, work } of checks) {
    try {
      await inTime(work(), 'the whole of it');
      console.log(`ok    ${sentence}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL  ${sentence}: ${error && (error.stack || error.message || error)}`.replace(/\n\s*/g, ' '));
    }
  }
  console.log(`${checks.length - failed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
})();
