/** An error of kafkajs, as far as it says what a broker has answered. */
interface KafkajsError {
  /** Kafka's name of the error. */
  type?: string;
  message: string;
  /** The topic that an error of `createTopics` is about. */
  topic?: string;
}

/** kafkajs gives up with an error that has the last failure as its cause, or several in `errors`. */
export function causesOf(error: unknown): KafkajsError[] {
  if (!(error instanceof Error)) return [];
  const { errors = [] } = error as { errors?: unknown[] };
  return [error, ...errors.flatMap(causesOf), ...causesOf(error.cause)];
}

/** True when a broker has answered with an error whose name matches. */
export const isAnswer = (error: unknown, name: RegExp): boolean =>
  causesOf(error).some(({ type = '' }) => name.test(type));
