import path from 'node:path';
import { EmbeddedServerError, NO_PERF_DATA, runTool } from './embedded-process.js';
import { mavenClassPath } from './maven.js';

/** The version of Apache Kafka that is started. */
export const KAFKA_VERSION = '4.4.0';

const OLDEST_JAVA = 17;

const JARS = [
  `org.apache.kafka:kafka_2.13:${KAFKA_VERSION}`,
  // The binding for the slf4j 1.7 and the log4j 2.25.5 that this Kafka brings.
  'org.apache.logging.log4j:log4j-slf4j-impl:2.25.5',
];

/** This machine has no Java or cannot get Kafka's jars; the message also says how to do without them. */
export class KafkaUnavailableError extends EmbeddedServerError {
  override name = 'KafkaUnavailableError';
}

const unavailable = (reason: string, cause: unknown): KafkaUnavailableError =>
  new KafkaUnavailableError(
    `${reason}; or give a broker (KAFKA_BROKERS=host:9092), or do without (KAFKA=off).`,
    {
      cause,
    },
  );

/**
 * The `java` to run: of JAVA_HOME when set, else of PATH.
 *
 * @throws KafkaUnavailableError when there is none or it is older than Kafka needs.
 */
export async function findJava(): Promise<string> {
  const home = process.env.JAVA_HOME;
  const java = home ? path.join(home, 'bin/java') : 'java';
  const version = await runTool(java, [NO_PERF_DATA, '-version']).catch((cause: unknown) => {
    throw unavailable(
      `Apache Kafka needs Java ${OLDEST_JAVA} or newer, and ${java} does not run: install it`,
      cause,
    );
  });
  const major = Number(/version "(?:1\.)?(\d+)/.exec(version)?.[1]);
  if (major >= OLDEST_JAVA) return java;
  throw unavailable(
    `Apache Kafka needs Java ${OLDEST_JAVA} or newer, and ${java} is older: install a newer one or set JAVA_HOME`,
    new Error(version.trim()),
  );
}

/**
 * The class path of Kafka's broker.
 *
 * @throws KafkaUnavailableError when Maven is missing or fails; `cause` has the last lines of its output.
 */
export async function kafkaClassPath(
  directory: string,
  marker: string,
  onProgress: ((message: string) => void) | undefined,
): Promise<string> {
  try {
    return await mavenClassPath(directory, JARS, {
      properties: [`-Dembedded.server=${marker}`],
      onDownload: () =>
        onProgress?.(`downloading Apache Kafka ${KAFKA_VERSION} with Maven (first time only) …`),
    });
  } catch (cause) {
    throw unavailable(
      `Apache Kafka ${KAFKA_VERSION} could not be fetched with Maven (mvn): install it, or see why it failed in the cause`,
      cause,
    );
  }
}
