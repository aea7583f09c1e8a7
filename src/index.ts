// People: the module, its service and what they take and return
export {
  PeopleModule,
  type PeopleModuleAsyncOptions,
  type PeopleModuleExtras,
  type PeopleModuleOptions,
  type PeopleRuntimeOptions,
} from './people/people.module.js';
export { type CallerOf } from './people/http/caller.js';
export { type PeopleHostOptions, preparePeopleHost } from './people/http/prepare-host.js';
export { InjectPeopleDataSource, PEOPLE_DATA_SOURCE, type PeopleOptions } from './people/people.options.js';
export {
  type IfMatch,
  type ImportOptions,
  type NewPerson,
  type PeoplePage,
  PeopleService,
  type PersonChanges,
} from './people/people.service.js';
export { Person, personJson } from './people/person.entity.js';
export {
  CreatePersonDto,
  FindPeopleDto,
  InsertedDto,
  PeoplePageDto,
  PersonDto,
  UpdatePersonDto,
} from './people/person.dto.js';
export { peopleMigrations } from '../migrations/index.js';

// The engine without people, which has entries of its own
export * from './messaging.js';
export * from './transactions.js';

// Lossless JSON
export { IsUint64 } from './people/person-data.js';
export { JsonError, JsonText, MAX_JSON_DEPTH } from './json/text.js';
export {
  JsonNumber,
  type JsonNumeric,
  type JsonObject,
  type JsonValue,
  parseJson,
  stringifyJson,
} from './json/lossless.js';

// What people on call see and do
export { ConsoleModule } from './operations/console/console.module.js';
export {
  MessageOperationsModule,
  type MessageOperationsOptions,
} from './operations/dead-letters/dead-letters.module.js';
export { OPERATION_SCOPE, type OperationScope, type OperatorOf } from './operations/operator-access.js';

// Errors of people
export {
  ImportNotRepeatableError,
  PersonChangedError,
  PersonConflictError,
  PersonInUseError,
  PersonNotFoundError,
  PersonRefusedError,
  StoredDataInvalidError,
} from './people/people.errors.js';
export { ImportPlacesTakenError } from './people/importing/places.js';
export { type ImportSource, ImportStalledError } from './people/importing/pace.js';
export { MemoryBudgetExhaustedError } from './people/byte-budget.js';
