import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { eventually } from './barrier.js';
import { programPath } from './program-path.js';

/** Debian's Chromium; undefined where it is not installed. */
export const CHROMIUM = programPath('chromium');

interface Answer {
  id?: number;
  sessionId?: string;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

/** A browser of its own, driven by the DevTools protocol over a pipe. */
export class Chromium {
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private readonly listeners = new Set<(event: Answer) => void>();
  private last = 0;
  private text = '';

  private constructor(
    private readonly child: ChildProcess,
    private readonly directory: string,
  ) {
    (child.stdio[4] as Readable).setEncoding('utf8').on('data', (data: string) => this.take(data));
  }

  static start(): Chromium {
    const directory = mkdtempSync(path.join(tmpdir(), 'chromium-'));
    const options = ['--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage', '--hide-scrollbars', `--user-data-dir=${directory}`, 'about:blank']; // prettier-ignore
    const child = spawn(CHROMIUM!, options, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    return new Chromium(child, directory);
  }

  /** A page of so many CSS pixels. */
  async page({ width, height }: { width: number; height: number }): Promise<Page> {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId as string);
    this.listeners.add(
      (event) => event.sessionId === sessionId && page.take(event.method!, event.params ?? {}),
    );
    for (const domain of ['Page', 'Runtime', 'Log']) await page.call(`${domain}.enable`);
    await page.call('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: false,
    });
    return page;
  }

  async call(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.last;
    const answered = new Promise<Answer>((resolve) => this.waiting.set(id, resolve));
    (this.child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const { result, error } = await answered;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  }

  async close(): Promise<void> {
    const ended = once(this.child, 'exit');
    // Asked to, it ends with its helpers; killed alone, it leaves them writing into the directory for a while.
    void this.call('Browser.close');
    const late = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(late);
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  private take(data: string): void {
    const messages = (this.text + data).split('\0');
    this.text = messages.pop()!;
    for (const message of messages) {
      const answer = JSON.parse(message) as Answer;
      if (answer.id === undefined) for (const listener of this.listeners) listener(answer);
      else this.waiting.get(answer.id)?.(answer);
    }
  }
}

const KEYS: Record<string, { code: string; windowsVirtualKeyCode: number; text?: string }> = {
  Tab: { code: 'Tab', windowsVirtualKeyCode: 9 },
  Enter: { code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' },
  Escape: { code: 'Escape', windowsVirtualKeyCode: 27 },
};

/** A page, as somebody in front of it has it. */
export class Page {
  /** What went wrong in it: errors of scripts, and what its policy has refused. */
  readonly errors: string[] = [];
  /** What it has asked for. */
  private loads = 0;

  constructor(
    private readonly browser: Chromium,
    private readonly session: string,
  ) {}

  call(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return this.browser.call(method, params, this.session);
  }

  take(method: string, params: Record<string, unknown>): void {
    if (method === 'Page.loadEventFired') this.loads++;
    if (method === 'Runtime.exceptionThrown') this.errors.push(JSON.stringify(params.exceptionDetails));
    const { entry } = params as { entry?: { source: string; level: string; text: string } };
    if (method === 'Log.entryAdded' && entry?.level === 'error' && entry.source !== 'network')
      this.errors.push(entry.text);
  }

  async open(url: string): Promise<void> {
    const before = this.loads;
    await this.call('Page.navigate', { url });
    await eventually(() => this.loads > before);
  }

  /** The value of an expression of JavaScript. */
  async see<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true }); // prettier-ignore
    if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: T }).value;
  }

  /** Waits until an expression is true. */
  async until(expression: string, atMostMs = 15_000): Promise<void> {
    await eventually(() => this.see<boolean>(`Boolean(${expression})`), atMostMs).catch(async () => {
      const text = await this.see<string>('document.body.innerText');
      throw new Error(`It did not come to this: ${expression}\n${this.errors.join('\n')}\n${text}`);
    });
  }

  async press(key: keyof typeof KEYS): Promise<void> {
    const what = { key, ...KEYS[key] };
    await this.call('Input.dispatchKeyEvent', { type: what.text ? 'keyDown' : 'rawKeyDown', ...what });
    await this.call('Input.dispatchKeyEvent', { type: 'keyUp', ...what });
  }

  /** Goes on by the tabulator key until an element has the focus. */
  async tabTo(selector: string): Promise<void> {
    for (let steps = 0; steps < 100; steps++) {
      if (await this.see(`document.activeElement?.matches(${JSON.stringify(selector)})`)) return;
      await this.press('Tab');
    }
    throw new Error(`By keyboard nobody comes to ${selector}.`);
  }

  /** Writes in place of what the element that has the focus holds. */
  async write(text: string): Promise<void> {
    await this.see('document.activeElement.select()');
    await this.call('Input.insertText', { text });
  }

  async emulate(features: { colors?: 'light' | 'dark'; width?: number; height?: number }): Promise<void> {
    const { colors = 'light', width, height = 900 } = features;
    await this.call('Emulation.setEmulatedMedia', {
      features: [{ name: 'prefers-color-scheme', value: colors }],
    });
    if (width !== undefined)
      await this.call('Emulation.setDeviceMetricsOverride', {
        width,
        height,
        deviceScaleFactor: 1,
        mobile: false,
      });
  }

  /** What is seen, as a PNG. */
  async picture(): Promise<Buffer> {
    const { data } = await this.call('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data as string, 'base64');
  }
}
