import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.listener.ContainerProperties;
import org.springframework.kafka.listener.KafkaMessageListenerContainer;
import org.springframework.kafka.requestreply.ReplyingKafkaTemplate;
import org.springframework.kafka.support.TopicPartitionOffset;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Requests of clients that are not ours. Arguments: the brokers, and the beginning of the names of the reply topics, one for each
 * client. A line of the input is a request, `client, topic, value`; a line of the output its reply, `value, error, headers`:
 * separated by tabs, the parts of the output in base64, or `-` where there is none.
 */
public class OtherClients {
  static final int PARTITION = 3;
  static final Duration PATIENCE = Duration.ofSeconds(30);

  interface Client {
    Reply ask(ProducerRecord<String, String> request) throws Exception;
  }

  record Reply(String value, String error, List<String> headers) {
    static Reply of(ConsumerRecord<String, String> record) {
      var names = new ArrayList<String>();
      for (Header header : record.headers()) names.add(header.key());
      return new Reply(record.value(), errorOf(record), names);
    }
  }

  static String errorOf(ConsumerRecord<?, ?> record) {
    Header error = record.headers().lastHeader("kafka_nest-err");
    return error == null ? null : new String(error.value(), UTF_8);
  }

  public static void main(String[] arguments) throws Exception {
    String brokers = arguments[0];
    String replies = arguments[1];
    var clients = new HashMap<String, Client>();
    var out = new PrintStream(System.out, true, UTF_8);
    var in = new BufferedReader(new InputStreamReader(System.in, UTF_8));
    for (String line; (line = in.readLine()) != null;) {
      String[] parts = line.split("\t");
      Client client = clients.computeIfAbsent(parts[0], name -> make(name, brokers, replies + "-" + name));
      Reply reply = client.ask(new ProducerRecord<>(parts[1], "key", parts[2]));
      out.println(String.join("\t", encoded(reply.value()), encoded(reply.error()), encoded(String.join(",", reply.headers()))));
    }
    System.exit(0);
  }

  static String encoded(String text) {
    return text == null ? "-" : "=" + Base64.getEncoder().encodeToString(text.getBytes(UTF_8));
  }

  static Client make(String name, String brokers, String replies) {
    return switch (name) {
      case "java-text" -> java(brokers, replies, UUID.randomUUID().toString().getBytes(UTF_8), String.valueOf(PARTITION).getBytes(UTF_8));
      case "java-bytes" -> java(brokers, replies, uuidBytes(), ByteBuffer.allocate(4).putInt(PARTITION).array());
      case "spring" -> spring(brokers, new ContainerProperties(replies), false);
      case "spring-partition" -> spring(brokers, new ContainerProperties(new TopicPartitionOffset(replies, PARTITION)), false);
      case "spring-checked" -> spring(brokers, new ContainerProperties(replies), true);
      default -> throw new IllegalArgumentException(name);
    };
  }

  static byte[] uuidBytes() {
    UUID uuid = UUID.randomUUID();
    return ByteBuffer.allocate(16).putLong(uuid.getMostSignificantBits()).putLong(uuid.getLeastSignificantBits()).array();
  }

  static Map<String, Object> settings(String brokers) {
    return Map.of(
        "bootstrap.servers", brokers,
        "key.serializer", StringSerializer.class,
        "value.serializer", StringSerializer.class,
        "key.deserializer", StringDeserializer.class,
        "value.deserializer", StringDeserializer.class,
        "auto.offset.reset", "earliest",
        "group.id", UUID.randomUUID().toString());
  }

  /** Java's client alone, which reads the partition that it has asked for. */
  static Client java(String brokers, String replies, byte[] firstId, byte[] partition) {
    var producer = new KafkaProducer<String, String>(settings(brokers));
    var consumer = new KafkaConsumer<String, String>(settings(brokers));
    consumer.assign(List.of(new TopicPartition(replies, PARTITION)));
    return request -> {
      // Another for each request.
      firstId[0]++;
      byte[] id = firstId.clone();
      request.headers().add("kafka_correlationId", id).add("kafka_replyTopic", replies.getBytes(UTF_8)).add("kafka_replyPartition", partition);
      producer.send(request).get();
      for (long end = System.nanoTime() + PATIENCE.toNanos(); System.nanoTime() < end;)
        for (var record : consumer.poll(Duration.ofMillis(100)))
          if (Arrays.equals(id, record.headers().lastHeader("kafka_correlationId").value())) return Reply.of(record);
      return new Reply(null, "no reply", List.of());
    };
  }

  static Client spring(String brokers, ContainerProperties properties, boolean isChecked) {
    var container = new KafkaMessageListenerContainer<String, String>(new DefaultKafkaConsumerFactory<>(settings(brokers)), properties);
    var producers = new DefaultKafkaProducerFactory<String, String>(settings(brokers));
    var template = new ReplyingKafkaTemplate<String, String, String>(producers, container);
    template.setDefaultReplyTimeout(PATIENCE);
    if (isChecked)
      template.setReplyErrorChecker(record -> {
        String error = errorOf(record);
        return error == null ? null : new IllegalStateException(error);
      });
    template.afterPropertiesSet();
    template.start();
    return request -> {
      template.waitForAssignment(PATIENCE);
      try {
        return Reply.of(template.sendAndReceive(request).get(PATIENCE.toSeconds() + 1, TimeUnit.SECONDS));
      } catch (ExecutionException failure) {
        return new Reply(null, failure.getCause().getMessage(), List.of());
      }
    };
  }
}
