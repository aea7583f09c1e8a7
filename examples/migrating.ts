import { Injectable, Module } from '@nestjs/common';
import { InjectDataSource, InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import { Column, DataSource, Entity, PrimaryColumn, Repository } from 'typeorm';
import {
  currentTransaction,
  outsideTransaction,
  Transactional,
  TransactionRunner,
  TransactionsModule,
} from '../src/index.js'; // a host application imports them from 'nestjs-people'

/** What docs/migrating.md shows of code, as it is run by test/transactions/migrating.spec.ts. */
@Entity('posts')
export class Post {
  @PrimaryColumn('text')
  id!: string;

  @Column('boolean')
  published!: boolean;
}

/** What is told to readers, once it is true. */
export abstract class Mail {
  abstract published(id: string): Promise<void>;
}

@Module({
  imports: [
    // TypeOrmModule.forRoot({ … }) as it was, without dataSourceFactory
    TransactionsModule.forRoot({ repositories: 'join' }),
  ],
})
export class DatabaseModule {}

@Injectable()
export class Posts {
  constructor(
    @InjectRepository(Post) private readonly posts: Repository<Post>,
    @InjectDataSource() private readonly dataSource: DataSource,
    private readonly transactions: TransactionRunner,
    private readonly mail: Mail,
  ) {}

  @Transactional({ isolationLevel: 'SERIALIZABLE' })
  async publish(id: string): Promise<Post> {
    const post = await this.posts.findOneByOrFail({ id });
    currentTransaction()!.afterCommit(() => this.mail.published(id));
    return this.posts.save({ ...post, published: true });
  }

  publishAll(ids: string[]): Promise<void> {
    return this.transactions.run({ timeoutMs: 5000 }, async () => {
      for (const id of ids) await this.publish(id);
    });
  }

  @Transactional()
  async publishIfItCan(id: string): Promise<boolean> {
    await this.posts.save({ id: `${id} tried`, published: false });
    try {
      await this.transactions.run({ propagation: 'NESTED' }, () => this.publish(id));
      return true;
    } catch {
      return false;
    }
  }

  @Transactional()
  async countTwice(): Promise<[inside: number, outside: number]> {
    await this.posts.save({ id: 'not yet there', published: false });
    const outside = await outsideTransaction(() => this.posts.count());
    return [await this.posts.count(), outside];
  }

  importAll(ids: string[]): Promise<void> {
    return this.transactions.run({}, async ({ manager }) => {
      await manager.insert(
        Post,
        ids.map((id) => ({ id, published: false })),
      );
      await this.dataSource.query('UPDATE posts SET published = true WHERE id = ANY($1)', [ids]);
    });
  }
}

@Module({ imports: [DatabaseModule, TypeOrmModule.forFeature([Post])], providers: [Posts] })
export class PostsModule {}
