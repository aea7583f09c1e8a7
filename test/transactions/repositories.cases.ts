import { Injectable } from '@nestjs/common';
import { InjectDataSource, InjectRepository } from '@nestjs/typeorm';
import {
  BaseEntity,
  Column,
  DataSource,
  Entity,
  EntityManager,
  type EntitySubscriberInterface,
  EventSubscriber,
  type InsertEvent,
  ManyToOne,
  OneToMany,
  PrimaryColumn,
  PrimaryGeneratedColumn,
  Repository,
  Tree,
  TreeChildren,
  TreeParent,
  TreeRepository,
} from 'typeorm';
import { currentTransaction } from '../../src/transactions/transaction-context.js';
import { Counter } from '../support/transactions-host.js';

@Entity('authors')
export class Author {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('text')
  name!: string;

  @OneToMany(() => Book, (book) => book.author, { cascade: true })
  books!: Promise<Book[]>;
}

@Entity('books')
export class Book {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  name!: string;

  @ManyToOne(() => Author, (author) => author.books)
  author!: Promise<Author>;
}

@Entity('notes')
export class Note extends BaseEntity {
  @PrimaryColumn('text')
  name!: string;
}

@Entity('branches')
@Tree('materialized-path')
export class Branch {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  name!: string;

  @TreeParent()
  parent!: Branch | null;

  @TreeChildren()
  children!: Branch[];
}

@Entity('twigs')
@Tree('closure-table')
export class Twig {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  name!: string;

  @TreeParent()
  parent!: Twig | null;

  @TreeChildren()
  children!: Twig[];
}

export const ENTITIES = [Author, Book, Note, Branch, Twig];

/** Writes a note for each author, and keeps what it was told by. */
@EventSubscriber()
export class NoteOfAuthors implements EntitySubscriberInterface<Author> {
  static heard: { isOfUnit: boolean; data: unknown }[] = [];

  listenTo(): typeof Author {
    return Author;
  }

  async afterInsert({ entity, manager, queryRunner }: InsertEvent<Author>): Promise<void> {
    const isOfUnit = manager === currentTransaction()?.manager;
    NoteOfAuthors.heard.push({ isOfUnit, data: { ...queryRunner.data } });
    await manager.insert(Note, { name: entity.name });
  }
}

/** As Nest's documentation has custom repositories. */
@Injectable()
export class Counters extends Repository<Counter> {
  constructor(@InjectDataSource() dataSource: DataSource) {
    super(Counter, dataSource.createEntityManager());
  }

  note(name: string): Promise<Counter> {
    return this.save({ name, value: 1 });
  }
}

/** What a service of a host holds since the application has started. */
@Injectable()
export class Library {
  constructor(
    @InjectDataSource() readonly dataSource: DataSource,
    @InjectRepository(Counter) readonly counters: Repository<Counter>,
    @InjectRepository(Author) readonly authors: Repository<Author>,
    @InjectRepository(Book) readonly books: Repository<Book>,
    @InjectRepository(Branch) readonly branches: TreeRepository<Branch>,
    @InjectRepository(Twig) readonly twigs: TreeRepository<Twig>,
    readonly own: Counters,
  ) {}

  readonly held = this.dataSource.getRepository(Counter);
  readonly heldBuilder = this.counters.createQueryBuilder().insert();
  readonly extended = this.counters.extend({
    note(this: Repository<Counter>, name: string) {
      return this.save({ name, value: 1 });
    },
  });
}

type Write = (library: Library, name: string) => Promise<unknown>;
const counter = (name: string) => ({ name, value: 1 });

/** Ways to write a row of that name, none of which knows of a transaction, and the table that it is in. */
export const WRITES: [string, string, Write][] = [
  ['save of an injected repository', 'counters', ({ counters }, name) => counters.save(counter(name))],
  ['insert of an injected repository', 'counters', ({ counters }, name) => counters.insert(counter(name))],
  [
    'upsert of an injected repository',
    'counters',
    ({ counters }, name) => counters.upsert(counter(name), ['name']),
  ],
  ['a repository that is held since the start', 'counters', ({ held }, name) => held.save(counter(name))],
  [
    'a repository that is asked for now',
    'counters',
    ({ dataSource }, name) => dataSource.getRepository(Counter).save(counter(name)),
  ],
  ['a class that extends Repository', 'counters', ({ own }, name) => own.note(name)],
  [
    'a class that was given the manager of another',
    'counters',
    ({ counters: { target, manager, queryRunner } }, name) =>
      new Repository(target, manager, queryRunner).save(counter(name)),
  ],
  ['repository.extend', 'counters', ({ extended }, name) => extended.note(name)],
  [
    'a query builder of a repository',
    'counters',
    ({ counters }, name) => counters.createQueryBuilder().insert().values(counter(name)).execute(),
  ],
  [
    'a query builder from before the unit',
    'counters',
    ({ heldBuilder }, name) => heldBuilder.values(counter(name)).execute(),
  ],
  [
    'a query builder of the DataSource',
    'counters',
    ({ dataSource }, name) =>
      dataSource.createQueryBuilder().insert().into(Counter).values(counter(name)).execute(),
  ],
  [
    'the manager of the DataSource',
    'counters',
    ({ dataSource }, name) => dataSource.manager.save(Counter, counter(name)),
  ],
  [
    'a manager of one’s own',
    'counters',
    ({ dataSource }, name) => new EntityManager(dataSource).save(Counter, counter(name)),
  ],
  [
    'dataSource.query',
    'counters',
    ({ dataSource }, name) => dataSource.query('INSERT INTO counters VALUES ($1, 1)', [name]),
  ],
  [
    'dataSource.transaction',
    'counters',
    ({ dataSource }, name) => dataSource.transaction((manager) => manager.save(Counter, counter(name))),
  ],
  [
    'manager.transaction of a repository',
    'counters',
    ({ own }, name) => own.manager.transaction(() => own.note(name)),
  ],
  [
    'a QueryRunner',
    'counters',
    async ({ dataSource }, name) => {
      const runner = dataSource.createQueryRunner();
      await runner.connect();
      await runner.manager.save(Counter, counter(name));
      await runner.release();
    },
  ],
  ['an entity that saves itself', 'notes', (_, name) => Note.create({ name }).save()],
  [
    'what is saved with it, by a cascade',
    'books',
    ({ authors, books }, name) =>
      authors.save(
        Object.assign(authors.create({ name: 'of many' }), {
          books: Promise.resolve([books.create({ name })]),
        }),
      ),
  ],
  ['what a subscriber adds', 'notes', ({ authors }, name) => authors.save(authors.create({ name }))],
  [
    'a tree by paths',
    'branches',
    async ({ branches }, name) => {
      const parent = await branches.save(branches.create({ name: 'trunk' }));
      await branches.save(branches.create({ name, parent }));
      expect((await branches.findDescendants(parent)).map((each) => each.name)).toEqual(['trunk', name]);
    },
  ],
  [
    'a tree by closures',
    'twigs',
    async ({ twigs }, name) => {
      const parent = await twigs.save(twigs.create({ name: 'trunk' }));
      await twigs.save(twigs.create({ name, parent }));
      expect(await twigs.countDescendants(parent)).toBe(2);
    },
  ],
];
