import 'reflect-metadata';
import {
  Body,
  Controller,
  Get,
  Module,
  NotFoundException,
  Param,
  ParseUUIDPipe,
  Patch,
  Post,
  ValidationPipe,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { IsNotEmpty, IsObject, IsOptional, IsString } from 'class-validator';
import { DataSource } from 'typeorm';
import { Person } from './stock-person.js';

class CreatePersonDto {
  @IsString()
  @IsNotEmpty()
  name!: string;

  @IsOptional()
  @IsObject()
  data?: object | null;
}

class RenamePersonDto {
  @IsString()
  @IsNotEmpty()
  name!: string;
}

@Controller('people')
class PeopleController {
  constructor(private readonly dataSource: DataSource) {}

  @Get(':id')
  async get(@Param('id', new ParseUUIDPipe()) id: string): Promise<Person> {
    const person = await this.dataSource.transaction((manager) =>
      manager.getRepository(Person).findOneBy({ id }),
    );
    if (!person) throw new NotFoundException();
    return person;
  }

  @Post()
  create(@Body() body: CreatePersonDto): Promise<Person> {
    return this.dataSource.transaction((manager) => {
      const repository = manager.getRepository(Person);
      return repository.save(repository.create(body));
    });
  }

  @Patch(':id')
  rename(@Param('id', new ParseUUIDPipe()) id: string, @Body() { name }: RenamePersonDto): Promise<Person> {
    return this.dataSource.transaction(async (manager) => {
      const repository = manager.getRepository(Person);
      const { affected } = await repository.update(id, { name });
      if (!affected) throw new NotFoundException();
      return repository.findOneByOrFail({ id });
    });
  }
}

/** What one writes first with Nest: its default platform (Express), its ValidationPipe, TypeORM's repository. */
export async function open({ databaseUrl, poolSize }: { databaseUrl: string; poolSize: number }) {
  @Module({
    imports: [TypeOrmModule.forRoot({ type: 'postgres', url: databaseUrl, poolSize, entities: [Person] })],
    controllers: [PeopleController],
  })
  class StockModule {}

  const app = await NestFactory.create(StockModule, { logger: false });
  app.useGlobalPipes(new ValidationPipe({ whitelist: true, transform: true }));
  await app.listen(0, '127.0.0.1');
  return { url: await app.getUrl(), close: () => app.close() };
}
