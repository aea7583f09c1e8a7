import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Java's own client, told by lines of tab-separated words what to do; tells what happens in such lines. */
public class JavaClient {
  private static final Map<String, Member> members = new HashMap<>();

  public static void main(String[] args) throws Exception {
    String brokers = args[0];
    Map<String, KafkaProducer<String, String>> producers = new HashMap<>();
    say("ready");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.split("\t", -1);
      try {
        switch (words[0]) {
          case "produce" -> {
            KafkaProducer<String, String> producer = producers.computeIfAbsent(words[3], codec -> producer(brokers, codec));
            List<org.apache.kafka.common.header.Header> headers = new ArrayList<>();
            for (int i = 6; i + 1 < words.length; i += 2)
              headers.add(new RecordHeader(words[i], words[i + 1].getBytes(StandardCharsets.UTF_8)));
            ProducerRecord<String, String> record =
                new ProducerRecord<>(words[1], Integer.valueOf(words[2]), words[4], words[5], headers);
            say("sent", String.valueOf(producer.send(record).get().offset()));
          }
          case "join" -> {
            Member member = new Member(brokers, words[1], Arrays.asList(words[2].split(",")), Arrays.asList(words).subList(3, words.length));
            members.put(words[1], member);
            member.start();
          }
          case "leave" -> {
            Member member = members.remove(words[1]);
            member.consumer.wakeup();
            member.join();
            say("left", words[1]);
          }
          default -> throw new IllegalArgumentException(line);
        }
      } catch (Exception error) {
        say("failed", String.valueOf(error));
      }
    }
    System.exit(0);
  }

  private static KafkaProducer<String, String> producer(String brokers, String codec) {
    Map<String, Object> settings = new HashMap<>();
    settings.put("bootstrap.servers", brokers);
    settings.put("compression.type", codec);
    return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
  }

  private static synchronized void say(String... words) {
    System.out.println(String.join("\t", words).replace("\n", " "));
    System.out.flush();
  }

  private static class Member extends Thread {
    private final String name;
    private final List<String> topics;
    final KafkaConsumer<String, String> consumer;

    Member(String brokers, String name, List<String> topics, List<String> settings) {
      this.name = name;
      this.topics = topics;
      Map<String, Object> all = new HashMap<>();
      all.put("bootstrap.servers", brokers);
      all.put("auto.offset.reset", "earliest");
      for (String setting : settings) all.put(setting.split("=", 2)[0], setting.split("=", 2)[1]);
      consumer = new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
      setDaemon(true);
    }

    @Override
    public void run() {
      try (consumer) {
        consumer.subscribe(topics, new ConsumerRebalanceListener() {
          @Override
          public void onPartitionsRevoked(Collection<TopicPartition> gone) {
            consumer.commitSync();
          }

          @Override
          public void onPartitionsAssigned(Collection<TopicPartition> more) {
            say("assigned", name, consumer.assignment().stream().map(TopicPartition::toString).sorted().collect(Collectors.joining(",")));
          }
        });
        while (true)
          for (var record : consumer.poll(Duration.ofMillis(100)))
            say("record", name, record.topic(), String.valueOf(record.partition()), String.valueOf(record.offset()), String.valueOf(record.value()));
      } catch (org.apache.kafka.common.errors.WakeupException end) {
        // It was told to leave.
      } catch (Exception error) {
        say("failed", name + ": " + error);
      }
    }
  }
}
