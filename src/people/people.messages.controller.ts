import { Controller, Inject, UseFilters, UsePipes } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { MessageErrorFilter } from '../errors/error-responses.js';
import { type JsonInput, readMemberArray } from './json-input.js';
import { MessageInputPipe } from './message-input.pipe.js';
import { type IfMatch, type NewPerson, PeopleService } from './people.service.js';
import { PeopleDto, PersonIdDto, validateInput } from './person.dto.js';
import { relocate } from './person-data.js';
import { pageJson, personJson } from './person.entity.js';

/**
 * The topics `people.*`: each is request-reply when the message asks for a reply, else fire-and-forget. Replies are JSON
 * text, for a serializer would change numbers. Pipe and filter are bound here because a hybrid application does not hand
 * its global ones to message handlers.
 */
@Controller()
@UsePipes(MessageInputPipe)
@UseFilters(MessageErrorFilter)
export class PeopleMessagesController {
  constructor(@Inject(PeopleService) private readonly people: PeopleService) {}

  @MessagePattern('people.create')
  async create(@Payload() input: JsonInput): Promise<string> {
    return personJson(await this.people.create(input as unknown as NewPerson));
  }

  @MessagePattern('people.create-many')
  async createMany(@Payload() input: JsonInput): Promise<string> {
    validateInput(PeopleDto, input);
    const people = readMemberArray(input, 'people');
    try {
      return JSON.stringify(await this.people.createMany(people as unknown as NewPerson[]));
    } catch (error) {
      throw relocate(error, /^#/, '#/people');
    }
  }

  @MessagePattern('people.get')
  async get(@Payload() input: JsonInput): Promise<string> {
    const { id } = validateInput(PersonIdDto, input);
    return personJson(await this.people.get(id));
  }

  @MessagePattern('people.find-by-name')
  async findByName(@Payload() { name, ...page }: JsonInput): Promise<string> {
    return pageJson(await this.people.findByName(name as string, page));
  }

  @MessagePattern('people.update')
  async update(@Payload() { id, ifMatch, ...changes }: JsonInput): Promise<string> {
    const person = await this.people.update(id as string, changes, ifMatchOf(ifMatch));
    return personJson(person);
  }

  @MessagePattern('people.delete')
  async remove(@Payload() { ifMatch, ...rest }: JsonInput): Promise<null> {
    const { id } = validateInput(PersonIdDto, rest);
    await this.people.remove(id, ifMatchOf(ifMatch));
    return null;
  }
}

const ifMatchOf = (ifMatch: unknown): IfMatch =>
  ifMatch === undefined ? {} : { ifMatch: ifMatch as string };
