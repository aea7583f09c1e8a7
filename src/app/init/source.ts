import path from 'node:path';
import type ts from 'typescript';
import { InitError } from './init-error.js';
import type { Call, ObjectLiteral, Value } from './literals.js';
import { addItems, indentAt, type ListPlace } from './list-edits.js';
import { type Edit, TextEdits } from './text-edits.js';
import { compilerOf } from './typescript.js';

/** A source file of the application: what stands in it, and changes of it that leave everything else as it is. */
export class Source {
  private readonly compiler: typeof ts;
  private readonly file: ts.SourceFile;
  private readonly edits: TextEdits;
  private readonly newImports: { from: string; name: string }[] = [];
  private readonly hasCarriageReturns: boolean;

  /** @throws InitError it can't be read */
  constructor(
    root: string,
    readonly name: string,
    text: string,
  ) {
    this.compiler = compilerOf(root) as typeof ts;
    this.hasCarriageReturns = text.includes('\r\n');
    this.edits = new TextEdits(text.replaceAll('\r\n', '\n'));
    const { createSourceFile, parseJsonText, ScriptTarget } = this.compiler;
    this.file = name.endsWith('.json')
      ? parseJsonText(name, this.edits.original)
      : createSourceFile(name, this.edits.original, ScriptTarget.Latest, true);
    // What the parser has missed; an edit of such a file would be a guess.
    const { parseDiagnostics = [] } = this.file as { parseDiagnostics?: readonly unknown[] };
    if (parseDiagnostics.length > 0) throw new InitError(`${name}: it has syntax errors.`);
  }

  /** The text with what was changed in it. */
  get text(): string {
    const text = this.edits.textWith(this.importLines());
    return this.hasCarriageReturns ? text.replaceAll('\n', '\r\n') : text;
  }

  /** The object that a JSON file is. */
  get json(): ObjectLiteral | undefined {
    const [statement] = this.file.statements;
    return statement && this.compiler.isExpressionStatement(statement)
      ? this.value(statement.expression).object
      : undefined;
  }

  /** The module that a name is imported from, and what it is called there. */
  imported(local: string): { from: string; name: string } | undefined {
    for (const { from, names } of this.imports())
      for (const { name, propertyName } of names)
        if (name.text === local) return { from, name: (propertyName ?? name).text };
    return undefined;
  }

  /** What something that is imported is called here. */
  localName(from: string, name: string): string | undefined {
    if (this.newImports.some((each) => each.from === from && each.name === name)) return name;
    const names = this.imports().flatMap((each) => (each.from === from ? each.names : []));
    return names.find((each) => (each.propertyName ?? each.name).text === name)?.name.text;
  }

  /**
   * Imports what is not imported yet.
   *
   * @throws InitError a name is something else here
   */
  addImports(from: string, names: readonly string[]): void {
    const missing = names.filter((name) => this.localName(from, name) === undefined);
    for (const name of missing)
      if (this.declares(name))
        throw new InitError(
          `${this.name}: ${name} is something else here; import that of '${from}' by another name.`,
        );
    if (missing.length === 0) return;
    const there = this.imports().find((each) => each.from === from && each.list);
    if (there?.list) addItems(this.edits, there.list, missing);
    else this.newImports.push(...missing.map((name) => ({ from, name })));
  }

  /** Lines for what is imported of modules of which nothing was, below the other imports. */
  private importLines(): Edit[] {
    const last = this.file.statements.filter(this.compiler.isImportDeclaration).at(-1);
    const quote = last?.moduleSpecifier.getText(this.file)[0] ?? "'";
    const end = !last || last.getText(this.file).endsWith(';') ? ';' : '';
    const at = last?.end ?? this.file.statements[0]?.getStart(this.file) ?? 0;
    return [...new Set(this.newImports.map(({ from }) => from))].map((from) => {
      const names = this.newImports.filter((each) => each.from === from).map(({ name }) => name);
      const line = `import { ${names.join(', ')} } from ${quote}${from}${quote}${end}`;
      return { from: at, to: at, text: last ? `\n${line}` : `${line}\n` };
    });
  }

  /** Takes back all that the work has changed where it throws. */
  atomically<Result>(work: () => Result): Result {
    const [edits, imports] = [this.edits.count, this.newImports.length];
    try {
      return work();
    } catch (error) {
      this.edits.takeBack(edits);
      this.newImports.length = imports;
      throw error;
    }
  }

  /** The calls of a function, as `NestFactory.create`; where nothing is said, all of them. */
  calls(callee?: string): Call[] {
    const found: Call[] = [];
    const visit = (node: ts.Node): void => {
      if (this.compiler.isCallExpression(node) || this.compiler.isNewExpression(node)) {
        const call = this.call(node);
        if (callee === undefined || call.callee === callee) found.push(call);
      }
      this.compiler.forEachChild(node, visit);
    };
    visit(this.file);
    return found;
  }

  /** The argument of a class's decorator. @param className that of the class; undefined: the first that has it */
  decorator(name: string, className: string): Value | undefined {
    const { isClassDeclaration, canHaveDecorators, getDecorators, isCallExpression } = this.compiler;
    for (const node of this.file.statements) {
      if (!isClassDeclaration(node) || node.name?.text !== className || !canHaveDecorators(node)) continue;
      for (const { expression } of getDecorators(node) ?? [])
        if (isCallExpression(expression) && expression.expression.getText(this.file) === name)
          return expression.arguments[0] && this.value(expression.arguments[0]);
    }
    return undefined;
  }

  private imports(): { from: string; names: readonly ts.ImportSpecifier[]; list: ListPlace | undefined }[] {
    const { isImportDeclaration, isNamedImports, isStringLiteral } = this.compiler;
    return this.file.statements.filter(isImportDeclaration).flatMap(({ moduleSpecifier, importClause }) => {
      const bindings = importClause?.namedBindings;
      if (!bindings || !isNamedImports(bindings) || !isStringLiteral(moduleSpecifier)) return [];
      const list = importClause.isTypeOnly ? undefined : this.list(bindings, bindings.elements);
      return [{ from: moduleSpecifier.text, names: importClause.isTypeOnly ? [] : bindings.elements, list }];
    });
  }

  /** Whether a name is used for something at the top of the file. */
  private declares(name: string): boolean {
    const { isImportDeclaration, isVariableStatement } = this.compiler;
    return this.file.statements.some((node) => {
      if (isImportDeclaration(node))
        return new RegExp(`\\b${name}\\b`).test(node.importClause?.getText(this.file) ?? '');
      if (isVariableStatement(node))
        return node.declarationList.declarations.some((each) => each.name.getText(this.file) === name);
      return (node as { name?: ts.Node } & ts.Node).name?.getText(this.file) === name;
    });
  }

  private call(node: ts.CallExpression | ts.NewExpression): Call {
    const { isVariableDeclaration, isAwaitExpression, isIdentifier } = this.compiler;
    const holder = isAwaitExpression(node.parent) ? node.parent.parent : node.parent;
    return {
      callee: node.expression.getText(this.file).replace(/\s+/g, ''),
      arguments: (node.arguments ?? []).map((each) => this.value(each)),
      variable: isVariableDeclaration(holder) && isIdentifier(holder.name) ? holder.name.text : undefined,
      addBefore: (statement) => {
        const at = this.statementOf(node).getStart(this.file);
        this.edits.insert(at, `${statement}\n${indentAt(this.edits.original, at)}`);
      },
    };
  }

  private statementOf(node: ts.Node): ts.Node {
    const { isBlock, isSourceFile } = this.compiler;
    for (let each = node; each.parent; each = each.parent)
      if (isBlock(each.parent) || isSourceFile(each.parent)) return each;
    throw new InitError(
      `${this.name}: there is no place for a statement before ${path.basename(node.getText(this.file))}.`,
    );
  }

  private value(node: ts.Expression): Value {
    const compiler = this.compiler;
    const inner = this.unwrapped(node);
    return {
      text: node.getText(this.file),
      string: compiler.isStringLiteralLike(inner) ? inner.text : undefined,
      object: compiler.isObjectLiteralExpression(inner) ? this.object(inner) : undefined,
      array: compiler.isArrayLiteralExpression(inner)
        ? {
            items: inner.elements.map((each) => this.value(each)),
            add: (texts, index) => addItems(this.edits, this.list(inner, inner.elements), texts, index),
          }
        : undefined,
    };
  }

  /** Without what says the type of it, and of a function what it returns. */
  private unwrapped(node: ts.Node): ts.Node {
    const compiler = this.compiler;
    if (
      compiler.isParenthesizedExpression(node) ||
      compiler.isAsExpression(node) ||
      compiler.isSatisfiesExpression(node)
    )
      return this.unwrapped(node.expression);
    if (
      !compiler.isArrowFunction(node) &&
      !compiler.isFunctionExpression(node) &&
      !compiler.isMethodDeclaration(node)
    )
      return node;
    if (!node.body || !compiler.isBlock(node.body)) return node.body ? this.unwrapped(node.body) : node;
    const last = node.body.statements.at(-1);
    // Another way out would be one that a change of this one misses.
    const isOnlyWayOut = node.body.getText(this.file).match(/\breturn\b/g)?.length === 1;
    return isOnlyWayOut && last && compiler.isReturnStatement(last) && last.expression
      ? this.unwrapped(last.expression)
      : node;
  }

  private object(node: ts.ObjectLiteralExpression): ObjectLiteral {
    const compiler = this.compiler;
    const nameOf = (member: ts.ObjectLiteralElementLike) =>
      member.name && (compiler.isIdentifier(member.name) || compiler.isStringLiteral(member.name))
        ? member.name.text
        : '';
    return {
      names: node.properties.map(nameOf),
      hasSpread: node.properties.some(compiler.isSpreadAssignment),
      get: (name) => {
        const member = node.properties.find((each) => nameOf(each) === name);
        if (!member) return undefined;
        if (compiler.isPropertyAssignment(member)) return this.value(member.initializer);
        return this.value(member as unknown as ts.Expression);
      },
      add: (texts, index) => addItems(this.edits, this.list(node, node.properties), texts, index),
    };
  }

  private list(node: ts.Node, items: ts.NodeArray<ts.Node>): ListPlace {
    return {
      from: node.getStart(this.file) + 1,
      to: node.end - 1,
      items: items.map((each) => ({ from: each.getStart(this.file), to: each.end })),
      hasTrailingComma: items.hasTrailingComma ?? false,
    };
  }
}
