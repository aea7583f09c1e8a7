// transactions/setup/: How a module is set up: once per DataSource by `forRoot`, and with which options.
// Promises: wherever it is imported it is the one that was set up; what is misspelt or doubled refuses the start.
// May know: Nest's containers of modules, and what options are; neither how units of work run nor what the modules provide.

import {
  type DynamicModule,
  type InjectionToken,
  Module,
  type ModuleMetadata,
  type Provider,
  type Type,
} from '@nestjs/common';
import { LazyModuleLoader, type ModuleRef, ModulesContainer } from '@nestjs/core';
import { randomUUID } from 'node:crypto';
import { DEFAULT_NAME } from './provided-data-source.js';

/** What a module that is set up gives to those that import it, by token. */
type Given = ReadonlyMap<InjectionToken, unknown>;

/** A module as it is set up on one DataSource. */
interface SetUp {
  shared: SharedModule;
  dataSource: string | undefined;
  /** Two that look alike are two also where Nest knows modules by what is in them (`moduleIdGeneratorAlgorithm: 'deep-hash'`). */
  id: string;
}

/** Beside each module that is set up: global, so that others find it, but for tokens that nobody else has. */
@Module({})
class SetUpModule {}

const SET_UP = Symbol('nestjs-people:SET_UP');
const BARE = Symbol('nestjs-people:BARE');
const GIVEN = Symbol('nestjs-people:GIVEN');

/** By application: what is set up with every default, as nothing else is and somebody imports it. */
const defaults = new WeakMap<ModulesContainer, Promise<ModuleRef>>();

interface SetUpOptions {
  /** Provides what the module gives. */
  core: DynamicModule;
  dataSource: string | undefined;
  isGlobal: boolean | undefined;
  controllers?: Type[];
}

/**
 * A module whose `forRoot` sets it up, and which is the same one where it is imported bare, without options: `imports: [TheModule]`.
 *
 * What it provides is made once, in a core module. The module itself, bare or not, gives that on. Which core a bare one gives on is
 * known once all modules of the application are, so that their order does not matter.
 */
export class SharedModule {
  private readonly ofAny: symbol;

  /**
   * @param name of the module, for people to read
   * @param gives what the module exports
   * @param withDefaults set up with every default
   */
  constructor(
    readonly name: string,
    private readonly gives: readonly InjectionToken[],
    private readonly withDefaults: () => DynamicModule,
  ) {
    this.ofAny = Symbol(`nestjs-people:${name}`);
  }

  /** What `@Module()` takes. */
  get bare(): ModuleMetadata {
    const given: Provider = {
      provide: GIVEN,
      inject: [
        ModulesContainer,
        LazyModuleLoader,
        { token: this.tokenOn(undefined), optional: true },
        { token: this.ofAny, optional: true },
      ],
      useFactory: (
        modules: ModulesContainer,
        loader: LazyModuleLoader,
        ofDefault: Given | undefined,
        ofAny: Given | undefined,
      ) => this.choose(modules, loader, ofDefault, ofAny),
    };
    const gives = this.gives.map((token) => ({
      provide: token,
      inject: [GIVEN],
      // There is none where the start is failing already, of which Nest tells.
      useFactory: (from: Given | undefined) => from?.get(token),
    }));
    return { providers: [{ provide: BARE, useValue: this }, given, ...gives], exports: [...this.gives] };
  }

  /** What `forRoot` of `module` returns. */
  setUp(module: Type, { core, isGlobal = false, controllers = [], ...given }: SetUpOptions): DynamicModule {
    const dataSource = given.dataSource === DEFAULT_NAME ? undefined : given.dataSource;
    const token = this.tokenOn(dataSource);
    const setUp: SetUp = { shared: this, dataSource, id: randomUUID() };
    const beside: DynamicModule = {
      module: SetUpModule,
      global: true,
      imports: [core],
      providers: [
        { provide: SET_UP, useValue: setUp },
        {
          provide: token,
          inject: [ModulesContainer, ...this.gives],
          useFactory: (modules: ModulesContainer, ...given: unknown[]): Given => {
            assertSetUpOnce(setUpsOf(modules), dataSource);
            return new Map(this.gives.map((each, place) => [each, given[place]]));
          },
        },
        { provide: this.ofAny, useExisting: token },
      ],
      exports: [token, this.ofAny],
    };
    return {
      module,
      global: isGlobal,
      imports: [core, beside],
      controllers,
      // In place of what a bare one would choose.
      providers: [{ provide: GIVEN, useExisting: token }],
    };
  }

  /** True where it gives all that the other gives. */
  brings(other: SharedModule): boolean {
    return other.gives.every((token) => this.gives.includes(token));
  }

  private tokenOn(dataSource: string | undefined): symbol {
    return Symbol.for(`nestjs-people:${this.name}:${dataSource ?? ''}`);
  }

  private async choose(
    modules: ModulesContainer,
    loader: LazyModuleLoader,
    ofDefault: Given | undefined,
    ofAny: Given | undefined,
  ): Promise<Given | undefined> {
    const names = setUpsOf(modules).flatMap(({ shared, dataSource }) =>
      shared === this ? [dataSource] : [],
    );
    if (defaults.has(modules) || names.length === 0) {
      const loaded = await this.loadDefaults(modules, loader);
      return loaded.get<Given>(this.tokenOn(undefined), { strict: false });
    }
    if (names.includes(undefined)) return ofDefault;
    if (names.length === 1) return ofAny;
    throw new Error(
      `${this.name} is imported without options, and there are several of it, on the DataSources ${names.join(', ')}. ` +
        `Keep what ${this.name}.forRoot({ dataSource: '${names[0]}', … }) returned in a constant, and import that.`,
    );
  }

  /** Of several that are imported bare, the one that brings the others along. */
  private loadDefaults(modules: ModulesContainer, loader: LazyModuleLoader): Promise<ModuleRef> {
    let loading = defaults.get(modules);
    if (!loading) {
      const bare = valuesOf<SharedModule>(modules, BARE).filter((other) => other.brings(this));
      const [widest = this] = bare.sort((a, b) => b.gives.length - a.gives.length);
      loading = loader.load(() => widest.withDefaults());
      defaults.set(modules, loading);
    }
    return loading;
  }
}

/** @throws Error some module is set up twice on the DataSource */
function assertSetUpOnce(all: readonly SetUp[], dataSource: string | undefined): void {
  const here = all.filter((each) => each.dataSource === dataSource).map(({ shared }) => shared);
  const twice = here.filter((shared, place) => here.indexOf(shared) !== place);
  if (twice.length === 0) return;
  const place = dataSource === undefined ? 'the default DataSource' : `the DataSource '${dataSource}'`;
  const isWidest = (shared: SharedModule) => here.every((other) => shared.brings(other));
  const doubled = twice.find(isWidest) ?? twice[0]!;
  const { name } = doubled;
  const bringer = here.find((shared) => shared !== doubled && isWidest(shared));
  throw new Error(
    bringer
      ? `${name}.forRoot stands beside ${bringer.name}.forRoot, which sets up ${name} as well, both on ${place}. ` +
          `Give its options to ${bringer.name}.forRoot, and import ${name} without options where it is needed: imports: [${name}].`
      : `${name}.forRoot stands twice for ${place}; an application has one for each. ` +
          `Keep one of them, and import the module without options everywhere else: imports: [${name}].`,
  );
}

const setUpsOf = (modules: ModulesContainer) => valuesOf<SetUp>(modules, SET_UP);

const valuesOf = <Value>(modules: ModulesContainer, token: symbol): Value[] =>
  [...modules.values()].flatMap(({ providers }) => {
    const value = providers.get(token)?.instance as Value | undefined;
    return value === undefined ? [] : [value];
  });
