import 'reflect-metadata';
import { Body, ConflictException, Controller, Module, Post } from '@nestjs/common';
import { APP_FILTER, NestFactory } from '@nestjs/core';
import { InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import {
  PeopleModule,
  peopleMigrations,
  PeopleService,
  preparePeopleHost,
  ProblemDetailsFilter,
  Transactional,
  TransactionManager,
} from 'nestjs-people';
import { Column, Entity, EntityManager, PrimaryColumn, Repository } from 'typeorm';
import { openPool } from './people-table.js';

const SEATS = 2;

/** Who sits in which club. */
@Entity('seats')
class Seat {
  @PrimaryColumn('uuid', { name: 'person_id' })
  personId!: string;

  @Column('text')
  club!: string;
}

interface Joining {
  name: string;
  club: string;
}

@Controller('clubs')
class ClubsController {
  constructor(
    private readonly people: PeopleService,
    @InjectRepository(Seat) private readonly seats: Repository<Seat>,
  ) {}

  /** The naive way: three statements, three transactions. */
  @Post('naive')
  async joinNaively(@Body() { name, club }: Joining) {
    const person = await this.people.create({ name });
    if ((await this.seats.countBy({ club })) >= SEATS) throw new ConflictException(`${club} is full.`);
    await this.seats.insert({ personId: person.id, club });
    return { joined: name };
  }

  /** The mend: one, and again from its start if it has met another. */
  @Post()
  @Transactional({ isolationLevel: 'SERIALIZABLE' })
  async join(@Body() { name, club }: Joining, @TransactionManager() manager: EntityManager) {
    const person = await this.people.create({ name });
    if ((await manager.countBy(Seat, { club })) >= SEATS) throw new ConflictException(`${club} is full.`);
    await manager.insert(Seat, { personId: person.id, club });
    return { joined: name };
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env.DATABASE_URL,
      autoLoadEntities: true,
      installExtensions: false,
      migrations: peopleMigrations,
      migrationsRun: true,
      migrationsTransactionMode: 'each',
    }),
    TypeOrmModule.forFeature([Seat]),
    PeopleModule.forRoot({ controllers: { http: true, messages: false } }),
  ],
  controllers: [ClubsController],
  providers: [{ provide: APP_FILTER, useClass: ProblemDetailsFilter }],
})
class AppModule {}

const pool = openPool();
await pool.query('CREATE TABLE seats (person_id uuid PRIMARY KEY, club text NOT NULL)');

const app = await NestFactory.create(AppModule, { logger: ['error'] });
preparePeopleHost(app); // bodies of people, and how long they may be
await app.listen(0, '127.0.0.1');
const url = await app.getUrl();

const post = (path: string, body: string) =>
  fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
const join = (path: string, name: string, club: string) => post(path, JSON.stringify({ name, club }));
const without = async () =>
  (
    await pool.query<{ name: string }>(
      'SELECT name FROM people WHERE NOT EXISTS (SELECT FROM seats WHERE person_id = id)',
    )
  ).rows.map(({ name }) => name);

// The naive way: who finds the club full is stored all the same.
const naively: number[] = [];
for (const name of ['Ada', 'Grace', 'Alan']) naively.push((await join('/clubs/naive', name, 'chess')).status);
console.log('naively:', naively, 'people without a seat:', await without());
await pool.query('TRUNCATE people, seats');

// In one transaction, and five at once for two seats: two have them, three are told that it is full.
const names = ['Ada', 'Grace', 'Alan', 'Linus', 'Barbara'];
const joined = await Promise.all(names.map((name) => join('/clubs', name, 'chess')));
console.log('at once:', joined.map(({ status }) => status).sort(), 'people without a seat:', await without());
const full = joined.find(({ status }) => status === 409)!;
console.log(full.headers.get('content-type'), await full.json());

// The routes of people are there as well, and keep every digit.
const created = await post('/people', '{"name":"Ada","data":{"many_many_fields":18446744073709551615}}');
const ada = `${url}${created.headers.get('location')}`;
console.log(created.status, /"data":.*}/.exec(await created.text())?.[0]);

// Change the version that was read, and no other.
const change = (etag: string, data: string) =>
  fetch(ada, {
    method: 'PATCH',
    headers: { 'content-type': 'application/json', 'if-match': etag },
    body: data,
  });
const etag = (await fetch(ada)).headers.get('etag')!;
const [first, second] = [await change(etag, '{"name":"A."}'), await change(etag, '{"name":"L."}')];
const { type } = (await second.json()) as { type: string };
console.log('changed:', first.status, 'and again:', second.status, type);
await app.close();
await pool.end();
