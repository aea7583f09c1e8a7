/** What a message was answered with: the values its handler gave, or the error. */
export type MessageAnswer = { values: readonly unknown[] } | { error: unknown };

/** What is known of a message that was handled. */
export interface HandledMessage {
  /** Of its content: the same id with another digest is another message. */
  digest: string;
  /** Where it came from; undefined for what is no Kafka message. */
  place?: { topic: string; partition: number; offset: string };
  /** undefined: nobody had asked for an answer. */
  answer: MessageAnswer | undefined;
}
