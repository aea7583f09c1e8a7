import { SignJWT } from 'jose';
import { mkdirSync, writeFileSync } from 'node:fs';
import { managementUrlOf } from '../../src/app/http/operations-access.js';
import { eventually } from '../support/barrier.js';
import { CHROMIUM, Chromium, type Page } from '../support/chromium.js';
import { KafkaPeer, startKafkaApp } from '../support/kafka.js';
import { type PeopleApp, startPeopleApp } from '../support/people-app.js';

const SECRET = 'a secret of more than thirty-two characters';
/** Set by whoever makes the pictures of docs/console anew. */
const PICTURES = process.env.CONSOLE_PICTURES;
const SCRIPT = '<script>document.title = "taken over"</script><img src=x onerror="document.title=1">';

if (!CHROMIUM)
  console.error('chromium is not installed: the tests of the console in a browser are left out.');
const inBrowser = CHROMIUM ? describe : describe.skip;

const tokenFor = (scope: string) =>
  new SignJWT({ scope, sub: 'alice' })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(SECRET));

inBrowser('the console, in Chromium', () => {
  const peer = new KafkaPeer();
  let app: PeopleApp;
  let browser: Chromium;
  let page: Page;
  let url: string;

  beforeAll(async () => {
    app = await startKafkaApp(peer, { AUTH: 'jwt', AUTH_SECRET: SECRET, MANAGEMENT_PORT: '0' });
    url = `${managementUrlOf(app.app.getHttpAdapter().getInstance())!}/console`;
    browser = Chromium.start();
    page = await browser.page({ width: 1280, height: 900 });
  }, 120_000);
  afterAll(async () => {
    await browser.close();
    await app.close();
    await peer.close();
  });

  const deadLetters = (where = `state = 'dead'`) =>
    app.database.query<{ seq: string }>(
      `SELECT seq::text FROM message_dead_letter WHERE ${where} ORDER BY seq`,
    );
  /** Sends a message that can't be handled. @returns the number of its dead letter */
  const failed = async (value: string) => {
    const before = (await deadLetters()).length;
    await peer.emit('people.create', { key: 'k', value });
    return (await eventually(async () => (await deadLetters())[before], 30_000)).seq;
  };
  const openConsole = async (scope: string) => {
    await page.open(url);
    await page.see('sessionStorage.clear()');
    await page.open(url);
    await page.tabTo('#token');
    await page.write(await tokenFor(scope));
    await page.press('Enter');
    await page.until(`document.querySelectorAll('#figures dd').length > 0`);
  };
  const openLetter = async (seq: string) => {
    await page.until(`document.querySelector('#letter-list').innerText.includes('${seq} people.create')`);
    await page.tabTo(`#letter-${seq}`);
    await page.press('Enter');
    await page.until(`document.querySelector('#letter').open`);
  };
  const picture = async (name: string) => {
    if (!PICTURES) return;
    mkdirSync(PICTURES, { recursive: true });
    writeFileSync(`${PICTURES}/${name}.png`, await page.picture());
  };

  it('shows what is measured, and what is not as that', async () => {
    await openConsole('people:read');
    const figures = await page.see<Record<string, string>>(
      `Object.fromEntries([...document.querySelectorAll('#figures > div')].map((of) => [of.querySelector('dt').innerText, of.querySelector('dd').innerText]))`,
    );
    expect(figures['Pool: open']).toMatch(/^\d+$/);
    expect(Object.values(figures).every((figure) => /^[\d.,]+$|^not measured$/.test(figure))).toBe(true);
    await page.until(`document.querySelector('#health').innerText.includes('kafka: up')`);
    await picture('figures');
  });

  it('a dead letter corrected in it, by keyboard alone, becomes one person', async () => {
    const seq = await failed('{"name":1,"data":{"n":18446744073709551615}}');
    await openConsole('people:read people:operate');
    await openLetter(seq);
    await picture('dead-letter');
    expect(await page.see(`document.querySelector('#letter-causes').textContent`)).toMatch(
      /^InvalidInputError.*\n +at /,
    );
    await page.tabTo('#letter-value');
    expect(await page.see('document.activeElement.value')).toBe(
      '{"name":1,"data":{"n":18446744073709551615}}',
    );
    await page.write('{"name":"Corrected","data":{"n":18446744073709551615}}');
    // Nothing is done without a reason.
    await page.tabTo('#letter-correct');
    await page.press('Enter');
    await page.until(`document.activeElement.id === 'letter-reason'`);
    await page.write('the name was a number');
    await page.tabTo('#letter-correct');
    await page.press('Enter');
    await page.until(`!document.querySelector('#letter').open`);
    const rows = () => app.database.query(`SELECT name, data::text FROM people WHERE name = 'Corrected'`);
    await eventually(async () => (await rows()).length > 0, 30_000);
    expect(await rows()).toEqual([{ name: 'Corrected', data: '{"n":18446744073709551615}' }]);
    expect(
      await app.database.query(`SELECT actor, action, reason, dead_letter::text FROM message_audit`),
    ).toEqual([{ actor: 'alice', action: 'correct', reason: 'the name was a number', dead_letter: seq }]);
    await page.until(`document.querySelector('#audit-list').innerText.includes('the name was a number')`);
    await page.tabTo('#person');
    await page.write('Corrected');
    await page.press('Enter');
    await page.until(`document.querySelector('#found').innerText.includes('18446744073709551615')`);
  });

  it('shows what a message holds as text, whatever it is', async () => {
    const seq = await failed(SCRIPT);
    const person = await app.people.create({ name: SCRIPT });
    await openConsole('people:read people:operate');
    await openLetter(seq);
    expect(await page.see(`document.querySelector('#letter-value').value`)).toBe(SCRIPT);
    await page.press('Escape');
    await page.until(`!document.querySelector('#letter').open`);
    await page.tabTo('#person');
    await page.write(person.id);
    await page.press('Enter');
    await page.until(`document.querySelector('#found').textContent.includes('<script>')`);
    expect(await page.see('document.title')).toBe('People: console');
    expect(await page.see(`document.querySelectorAll('main script, main img').length`)).toBe(0);
    // No script within the page runs, if something of it were markup all the same.
    await page.see(`document.body.append(Object.assign(document.createElement('p'), { id: 'probe' }))`);
    const refused = `try { document.querySelector('#probe').innerHTML = ${JSON.stringify(SCRIPT)}; 'taken' } catch { 'refused' }`;
    expect(await page.see(refused)).toBe('refused');
    expect(page.errors.filter((error) => !error.includes('TrustedHTML'))).toEqual([]);
  });

  it('replays and discards, and tells who may not which scope is missing', async () => {
    const [kept, gone] = [await failed('{"name":2}'), await failed('{"name":3}')];
    await openConsole('people:read people:operate');
    for (const [seq, action] of [[gone, 'discard'], [kept, 'replay']] as const) {
      await openLetter(seq);
      await page.tabTo('#letter-reason');
      await page.write('tried');
      await page.tabTo(`#letter-${action}`);
      await page.press('Enter');
      await page.until(`!document.querySelector('#letter').open`);
    } // prettier-ignore
    expect(await deadLetters(`seq = ${gone} AND state = 'discarded'`)).toHaveLength(1);
    expect(await deadLetters(`seq = ${kept} AND state = 'replayed'`)).toHaveLength(1);
    // It failed again.
    const [again] = await eventually(async () => {
      const rows = await deadLetters(`seq > ${gone} AND state = 'dead'`);
      return rows.length > 0 && rows;
    }, 30_000);
    await openConsole('people:read');
    await openLetter(again!.seq);
    await page.tabTo('#letter-reason');
    await page.write('not mine to do');
    await page.tabTo('#letter-discard');
    await page.press('Enter');
    await page.until(
      `document.querySelector('#letter-status').innerText.includes('lacks the scope people:operate')`,
    );
  });

  it('fits a phone, in light and in dark', async () => {
    for (const colors of ['light', 'dark'] as const) {
      await page.emulate({ colors, width: 320, height: 900 });
      await openConsole('people:read');
      const [width, ground] = await page.see<[number, string]>(`[document.documentElement.scrollWidth, getComputedStyle(document.documentElement).backgroundColor]`); // prettier-ignore
      expect([width <= 320, ground]).toEqual([
        true,
        colors === 'light' ? 'rgb(255, 255, 255)' : 'rgb(22, 23, 22)',
      ]);
      const [letter] = await deadLetters();
      await openLetter(letter!.seq);
      expect(await page.see(`document.querySelector('#letter').scrollWidth <= 320`)).toBe(true);
      await page.press('Escape');
      await page.until(`!document.querySelector('#letter').open`);
      await page.see('scrollTo(0, 0)');
      await picture(`phone-${colors}`);
    }
    await page.emulate({ width: 1280 });
  });

  it('asks for nothing while it is paused, or nobody looks', async () => {
    await openConsole('people:read');
    await page.until(`document.querySelector('#refreshed').innerText !== ''`);
    // How many times it is going to ask.
    await page.see(`{
      const [set, clear, due] = [setTimeout, clearTimeout, new Set()];
      globalThis.setTimeout = (call, ms) => {
        const timer = set(() => (due.delete(timer), call()), ms);
        due.add(timer);
        return timer;
      };
      globalThis.clearTimeout = (timer) => (due.delete(timer), clear(timer));
      globalThis.due = due;
    }`);
    const isDue = () => page.see<number>('due.size');
    const look = (isHidden: boolean) =>
      page.see(`Object.defineProperty(document, 'hidden', { value: ${isHidden}, configurable: true }),
        document.dispatchEvent(new Event('visibilitychange'))`);
    await page.until('due.size === 1');
    await look(true);
    expect(await isDue()).toBe(0);
    await look(false);
    await page.until('due.size === 1');
    await page.tabTo('#pause');
    await page.press('Enter');
    expect(await page.see(`document.querySelector('#pause').innerText`)).toBe('Go on');
    expect(await isDue()).toBe(0);
    await page.press('Enter');
    expect(await isDue()).toBe(1);
  });
});

it('the page is served with a policy that lets nothing in from elsewhere, and is where operators are alone', async () => {
  const peerless = await startPeopleApp({ MANAGEMENT_PORT: '0' });
  try {
    const url = managementUrlOf(peerless.app.getHttpAdapter().getInstance())!;
    const page = await fetch(`${url}/console`);
    const policy = page.headers.get('content-security-policy')!;
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    const text = await page.text();
    expect(text).not.toMatch(/<script(?![^>]*src=)|style="|\son\w+="/);
    for (const [, asset] of text.matchAll(/(?:src|href)="(console\/[^"]+)"/g))
      expect([asset, (await fetch(`${url}/${asset}`)).status]).toEqual([asset, 200]);
    for (const path of ['/console/index.html', '/console/..%2fconsole.controller.js', '/console/toString'])
      expect([path, (await fetch(url + path)).status]).toEqual([path, 404]);
    expect((await peerless.request('/console')).status).toBe(404);
  } finally {
    await peerless.close();
  }
});
