import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { NO_PERF_DATA, runTool } from './embedded-process.js';

/**
 * The class path of jars, with those that they need. Maven is asked once for each list of them and directory; the jars stay in its
 * local repository.
 *
 * @param directory is there
 * @param dependencies as `group:artifact:version`
 * @param options.properties added to Maven's command line
 * @throws Error Maven is missing or fails, with the last lines of its output
 */
export async function mavenClassPath(
  directory: string,
  dependencies: readonly string[],
  { properties = [], onDownload }: { properties?: string[]; onDownload?: () => void } = {},
): Promise<string> {
  const pom = pomOf(dependencies);
  const cache = path.join(
    directory,
    `classpath-${createHash('sha256').update(pom).digest('hex').slice(0, 16)}`,
  );
  const cached = existsSync(cache) ? readClassPath(cache) : undefined;
  if (cached !== undefined) return cached;
  onDownload?.();
  const pomFile = path.join(directory, 'pom.xml');
  const draft = `${cache}.new`;
  rmSync(draft, { force: true });
  writeFileSync(pomFile, pom);
  await runTool(
    'mvn',
    [
      ...['-B', '-q', '-Dstyle.color=never', '-f', pomFile, 'dependency:build-classpath'],
      ...['-Dmdep.includeScope=runtime', `-Dmdep.outputFile=${draft}`, ...properties],
    ],
    {
      cwd: directory,
      timeout: 900_000,
      env: { ...process.env, MAVEN_OPTS: `${process.env.MAVEN_OPTS ?? ''} ${NO_PERF_DATA}` },
    },
  );
  const found = readClassPath(draft);
  if (found === undefined)
    throw new Error('Maven named jars that are not there: empty its local repository', {
      cause: new Error(readFileSync(draft, 'utf8')),
    });
  renameSync(draft, cache);
  return found;
}

/** Undefined when a jar is gone, as after Maven's local repository was emptied. */
function readClassPath(file: string): string | undefined {
  const classPath = readFileSync(file, 'utf8').trim();
  const whole = classPath !== '' && classPath.split(path.delimiter).every((jar) => existsSync(jar));
  return whole ? classPath : undefined;
}

const coordinates = (artifact: string) => {
  const [group, name, version] = artifact.split(':');
  return `<groupId>${group}</groupId><artifactId>${name}</artifactId><version>${version}</version>`;
};

const pomOf = (dependencies: readonly string[]) => `<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  ${coordinates('dev.embedded:jars:1')}
  <packaging>pom</packaging>
  <dependencies>
${dependencies.map((each) => `    <dependency>${coordinates(each)}</dependency>\n`).join('')}  </dependencies>
  <build>
    <plugins>
      <plugin>${coordinates('org.apache.maven.plugins:maven-dependency-plugin:3.11.0')}</plugin>
    </plugins>
  </build>
</project>
`;
