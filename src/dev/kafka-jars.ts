import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { EmbeddedServerError, runTool } from './embedded-process.js';

/** The version of Apache Kafka that is started. */
export const KAFKA_VERSION = '4.4.0';

const OLDEST_JAVA = 17;

/** The JVM's statistics for jstat would be files in the system's temporary directory, outside of any directory of ours. */
export const NO_PERF_DATA = '-XX:-UsePerfData';

// log4j-slf4j-impl is the binding for the slf4j 1.7 and the log4j 2.25.5 that this Kafka brings.
const POM = `<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.embedded</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.5</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.11.0</version>
      </plugin>
    </plugins>
  </build>
</project>
`;

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
 * The class path of Kafka's broker. Maven is asked once for each version and directory; the jars stay in
 * Maven's local repository.
 *
 * @throws KafkaUnavailableError when Maven is missing or fails; `cause` has the last lines of its output.
 */
export async function kafkaClassPath(
  directory: string,
  marker: string,
  onProgress: ((message: string) => void) | undefined,
): Promise<string> {
  const cache = path.join(
    directory,
    `classpath-${createHash('sha256').update(POM).digest('hex').slice(0, 16)}`,
  );
  const cached = existsSync(cache) ? readClassPath(cache) : undefined;
  if (cached !== undefined) return cached;
  onProgress?.(`downloading Apache Kafka ${KAFKA_VERSION} with Maven (first time only) …`);
  const pom = path.join(directory, 'pom.xml');
  const draft = `${cache}.new`;
  rmSync(draft, { force: true });
  writeFileSync(pom, POM);
  await runTool(
    'mvn',
    [
      ...['-B', '-q', '-Dstyle.color=never', '-f', pom, 'dependency:build-classpath'],
      ...['-Dmdep.includeScope=runtime', `-Dmdep.outputFile=${draft}`, `-Dembedded.server=${marker}`],
    ],
    {
      cwd: directory,
      timeout: 900_000,
      env: { ...process.env, MAVEN_OPTS: `${process.env.MAVEN_OPTS ?? ''} ${NO_PERF_DATA}` },
    },
  ).catch((cause: unknown) => {
    throw unavailable(
      `Apache Kafka ${KAFKA_VERSION} could not be fetched with Maven (mvn): install it, or see why it failed in the cause`,
      cause,
    );
  });
  const found = readClassPath(draft);
  if (found === undefined) {
    throw unavailable(
      'Maven named jars of Apache Kafka that are not there: empty its local repository',
      new Error(readFileSync(draft, 'utf8')),
    );
  }
  renameSync(draft, cache);
  return found;
}

/** Undefined when a jar is gone, as after Maven's local repository was emptied. */
function readClassPath(file: string): string | undefined {
  const classPath = readFileSync(file, 'utf8').trim();
  const whole = classPath !== '' && classPath.split(path.delimiter).every((jar) => existsSync(jar));
  return whole ? classPath : undefined;
}
