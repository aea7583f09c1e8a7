import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;
/**
 * Prints batches of records as Kafka's own client writes them, for codecs.spec.ts. Compile and run it with kafka-clients 4.4 and the
 * codecs that it needs (lz4-java, snappy-java, zstd-jni) on the class path, and put what it prints into batches.json.
 */
public class JavaBatches {
  static byte[] value(int n, int size) {
    // Text that repeats, with numbers in between: compressible, in several blocks.
    StringBuilder s = new StringBuilder();
    for (int i = 0; s.length() < size; i++) s.append("record ").append(n).append(" line ").append(i * 7919 % 40).append(";");
    return s.substring(0, size).getBytes();
  }
  static String batch(Compression c, int count, int size) throws Exception {
    ByteBuffer buffer = ByteBuffer.allocate(1 << 20);
    MemoryRecordsBuilder b = new MemoryRecordsBuilder(new org.apache.kafka.common.utils.internals.ByteBufferOutputStream(buffer), (byte) 2, c, TimestampType.CREATE_TIME, 100L, 1300000000000L, -1L, (short) -1, -1, false, false, -1, 1 << 20);
    for (int i = 0; i < count; i++) {
      Header[] h = { new RecordHeader("n", null), new RecordHeader("n", String.valueOf(i).getBytes()) };
      b.append(1300000000000L + i, ("k" + i).getBytes(), value(i, size), h);
    }
    MemoryRecords r = b.build();
    ByteBuffer out = r.buffer();
    byte[] bytes = new byte[out.remaining()];
    out.get(bytes);
    return Base64.getEncoder().encodeToString(bytes);
  }
  public static void main(String[] a) throws Exception {
    Map<String, Compression> all = new LinkedHashMap<>();
    all.put("none", Compression.NONE);
    all.put("gzip", Compression.gzip().build());
    all.put("snappy", Compression.snappy().build());
    all.put("lz4", Compression.lz4().build());
    all.put("lz4, level 17", Compression.lz4().level(17).build());
    all.put("zstd", Compression.zstd().build());
    all.put("zstd, level 22", Compression.zstd().level(22).build());
    System.out.println("{");
    int i = 0;
    for (var e : all.entrySet()) {
      String large = e.getKey().equals("none") ? "" : batch(e.getValue(), 3, 30000);
      System.out.println("  \"" + e.getKey() + "\": { \"small\": \"" + batch(e.getValue(), 3, 40) + "\", \"large\": \"" + large + "\" }" + (++i < all.size() ? "," : ""));
    }
    System.out.println("}");
  }
}
