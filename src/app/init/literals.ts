/** A value in a source, as it is written. */
export interface Value {
  readonly text: string;
  /** Where it is an object literal; also as the value of an arrow function or of its one return. */
  readonly object: ObjectLiteral | undefined;
  readonly array: ArrayLiteral | undefined;
  /** Where it is a string literal: what it says. */
  readonly string: string | undefined;
}

/** `[a, b]` */
export interface ArrayLiteral {
  readonly items: readonly Value[];
  add(texts: readonly string[], index?: number): void;
}

/** `{ a: 1 }` */
export interface ObjectLiteral {
  /** Its members' names, in order. */
  readonly names: readonly string[];
  /** Whether it takes members over from another object, which can't be seen. */
  readonly hasSpread: boolean;
  get(name: string): Value | undefined;
  add(texts: readonly string[], index?: number): void;
}

/** `callee(argument, …)` */
export interface Call {
  readonly callee: string;
  readonly arguments: readonly Value[];
  /** The variable that is set to what it answers, if there is one. */
  readonly variable: string | undefined;
  /** Puts a statement before the one that it is part of. @throws InitError there is no place for one */
  addBefore(statement: string): void;
}
