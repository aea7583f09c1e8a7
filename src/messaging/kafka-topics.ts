import type { Kafka } from 'kafkajs';

/** How a topic is created that is missing; one that exists stays as it is. */
export interface TopicSettings {
  partitions: number;
  /** undefined = 3, or the number of brokers where they are fewer. */
  replication: number | undefined;
}

const USUAL_REPLICATION = 3;

/** Creates those of `topics` that are missing. */
export async function createMissingTopics(
  kafka: Kafka,
  topics: string[],
  settings: TopicSettings,
): Promise<void> {
  // The transport tries again by itself, and must be able to stop in between.
  const admin = kafka.admin({ retry: { retries: 1 } });
  await admin.connect();
  try {
    const existing = new Set(await admin.listTopics());
    const missing = topics.filter((topic) => !existing.has(topic));
    if (missing.length === 0) return;
    const { brokers } = await admin.describeCluster();
    const replicationFactor = settings.replication ?? Math.min(USUAL_REPLICATION, brokers.length);
    // Resolves with false when another instance was faster, which is as good.
    await admin.createTopics({
      topics: missing.map((topic) => ({ topic, numPartitions: settings.partitions, replicationFactor })),
      waitForLeaders: true,
    });
  } finally {
    await admin.disconnect();
  }
}
