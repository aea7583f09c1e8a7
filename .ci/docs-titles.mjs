/**
 * For TypeDoc: a document is called what its first heading says, and the chapters of the guide, the pages for operators and the rest
 * are groups of their own. Without it they are called as their files are.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';

const GROUPS = { 'docs/guide': 'Guide', 'docs/operations': 'Operations', docs: 'Documents' };

export function load(app) {
  app.converter.on(app.converter.constructor.EVENT_CREATE_DOCUMENT, (_context, document) => {
    const file = document.project.files.getReflectionPath(document);
    const [, heading] = /^# (.*)$/m.exec(readFileSync(file, 'utf8')) ?? [];
    if (heading) document.name = heading.replaceAll('`', '');
    document.frontmatter.group = GROUPS[path.relative('.', path.dirname(file))] ?? 'Project';
  });
}
