/** What a table is like that the module can't work on, as it comes about by real DDL. */
export interface Misfit {
  what: string;
  /** From the module's own table on. */
  statements: string[];
  /** Behind the rights that the role is given to everything. */
  rights?: string[];
  /** What is said of it. */
  difference: RegExp;
  /** What puts it right, where that is not a statement that is said. */
  mend?: string[];
}

const anew = (columns: string, more = ''): string[] => [
  'DROP TABLE people',
  `CREATE TABLE people (${columns}) ${more}`,
];
const below = (view: string, table = 'id uuid PRIMARY KEY, name text, data json'): string[] => [
  'DROP TABLE people',
  `CREATE TABLE below (${table})`,
  `CREATE VIEW people AS ${view}`,
];
const GRANTED = 'GRANT ALL ON people TO $role';

export const MISFITS: Misfit[] = [
  { what: 'no table', statements: ['ALTER TABLE people RENAME TO below'], difference: /people is not there \(search_path: public\).*migration:run/, mend: ['ALTER TABLE below RENAME TO people'] },
  { what: 'no data', statements: ['ALTER TABLE people DROP data'], difference: /data is missing; json or jsonb is needed/ },
  { what: 'no name', statements: ['ALTER TABLE people DROP name'], difference: /name is missing/ },
  { what: 'no id', statements: ['ALTER TABLE people DROP id'], difference: /id is missing/, mend: ['ALTER TABLE people ADD id uuid PRIMARY KEY'] },
  { what: 'id text', statements: anew('id text PRIMARY KEY, name text, data json'), difference: /id is of type text; uuid is needed/ },
  { what: 'id varchar(36) with a default', statements: anew('id varchar(36) PRIMARY KEY DEFAULT gen_random_uuid()::text, name text, data json'), difference: /id is of type character varying/ },
  { what: 'id bigint, an identity', statements: anew('id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, data json'), difference: /id is of type bigint; uuid is needed\./, mend: ['ALTER TABLE people DROP id', 'ALTER TABLE people ADD id uuid PRIMARY KEY'] },
  { what: 'id generated always', statements: anew(`id uuid GENERATED ALWAYS AS (md5(name)::uuid) STORED PRIMARY KEY, name text NOT NULL, data json`), difference: /id is generated always/ },
  { what: 'id that may be null', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey, ADD UNIQUE (id), ALTER id DROP NOT NULL'], difference: /id may be null/ },
  { what: 'no key', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey'], difference: /no primary key or unique index on exactly \(id\)/ },
  { what: 'an index that is not unique', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey', 'CREATE INDEX ON people (id)'], difference: /no primary key/ },
  { what: 'a key of id and another', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey, ADD PRIMARY KEY (id, name)'], difference: /no primary key.*ADD UNIQUE \(id\)/ },
  { what: 'a partial unique index', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey', `CREATE UNIQUE INDEX halfway ON people (id) WHERE name <> ''`], difference: /halfway is partial/ },
  { what: 'a deferrable key', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey, ADD CONSTRAINT late PRIMARY KEY (id) DEFERRABLE'], difference: /late is deferrable.*ADD PRIMARY KEY \(id\)/ },
  { what: 'a deferrable unique beside a key', statements: ['ALTER TABLE people ADD CONSTRAINT late UNIQUE (id) DEFERRABLE INITIALLY DEFERRED'], difference: /late is deferrable.*DROP CONSTRAINT late\.$/ },
  { what: 'a unique expression', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey', 'CREATE UNIQUE INDEX ON people ((id::text))'], difference: /no primary key/ },
  { what: 'name integer', statements: ['ALTER TABLE people ALTER name TYPE int USING 1'], difference: /name is of type integer; text or/ },
  { what: 'name char(20)', statements: ['ALTER TABLE people ALTER name TYPE char(20)'], difference: /name is of type character;/ },
  { what: 'name of the catalog’s type', statements: ['ALTER TABLE people ALTER name TYPE name'], difference: /name is of type name;/ },
  { what: 'name generated', statements: ['ALTER TABLE people DROP name', `ALTER TABLE people ADD name text GENERATED ALWAYS AS ('x') STORED`], difference: /name is generated always/ },
  { what: 'data text with a default', statements: [`ALTER TABLE people ALTER data TYPE text, ALTER data SET DEFAULT '{}'`], difference: /data is of type text/ },
  { what: 'data bytea', statements: ['ALTER TABLE people ALTER data TYPE bytea USING NULL'], difference: /data is of type bytea; json or jsonb is needed\./, mend: ['ALTER TABLE people ALTER data TYPE json USING NULL'] },
  { what: 'data json[]', statements: ['ALTER TABLE people ALTER data TYPE json[] USING NULL'], difference: /data is of type json\[\]/, mend: ['ALTER TABLE people ALTER data TYPE json USING NULL'] },
  { what: 'data NOT NULL', statements: [`ALTER TABLE people ALTER data SET NOT NULL, ALTER data SET DEFAULT '{}'`], difference: /data is NOT NULL/ },
  { what: 'a column more that must have a value', statements: ['ALTER TABLE people ADD tenant text NOT NULL'], difference: /tenant is NOT NULL without a default/ },
  { what: 'one whose name needs quotes', statements: ['ALTER TABLE people ADD "Created At" timestamptz NOT NULL'], difference: /"Created At" is NOT NULL/ },
  { what: 'one of a domain that must have a value', statements: ['DROP DOMAIN IF EXISTS must', 'CREATE DOMAIN must AS text NOT NULL', 'ALTER TABLE people ADD tenant must'], difference: /tenant is NOT NULL/, mend: ['ALTER TABLE people DROP tenant'] },
  { what: 'a rule on INSERT', statements: ['CREATE RULE copies AS ON INSERT TO people DO ALSO SELECT 1'], difference: /The rule copies/ },
  { what: 'no right to insert', statements: [], rights: ['REVOKE INSERT ON people FROM $role'], difference: /lacks the right to INSERT/ },
  { what: 'no right but to read', statements: [], rights: ['REVOKE INSERT, UPDATE, DELETE ON people FROM $role'], difference: /lacks the right to INSERT, UPDATE, DELETE/ },
  { what: 'no right to read a column', statements: [], rights: ['REVOKE SELECT ON people FROM $role', 'GRANT SELECT (id, name) ON people TO $role'], difference: /lacks the right to SELECT/ },
  { what: 'a materialized view', statements: ['ALTER TABLE people RENAME TO below', 'CREATE MATERIALIZED VIEW people AS SELECT * FROM below'], difference: /people is a materialized view/, mend: ['DROP MATERIALIZED VIEW people', 'ALTER TABLE below RENAME TO people', GRANTED] },
  { what: 'a view without data', statements: below('SELECT id, name FROM below'), difference: /data is missing.*add it to the view/, mend: ['CREATE OR REPLACE VIEW people AS SELECT id, name, data FROM below'] },
  { what: 'a view of two tables', statements: below('SELECT * FROM below UNION ALL SELECT * FROM below'), difference: /view people is not one that the server writes through/, mend: ['CREATE OR REPLACE VIEW people AS SELECT * FROM below'] },
  { what: 'a view with an expression', statements: below('SELECT id, upper(name) AS name, data FROM below'), difference: /view people is not one that the server writes through/, mend: ['CREATE OR REPLACE VIEW people AS SELECT * FROM below'] },
  { what: 'a view of a table without a key', statements: below('SELECT id, name, data FROM below', 'id uuid, name text, data json'), difference: /table below the view people has no primary key/, mend: ['ALTER TABLE below ADD PRIMARY KEY (id)'] },
  { what: 'a view with an id that is text', statements: below('SELECT id, name, data FROM below', 'id text PRIMARY KEY, name text, data json'), difference: /id is of type text; uuid is needed\./, mend: ['DROP VIEW people', 'ALTER TABLE below ALTER id TYPE uuid USING id::uuid', 'CREATE VIEW people AS SELECT * FROM below', GRANTED] },
  { what: 'a partitioned table whose key holds more', statements: anew('id uuid, name text, data json, PRIMARY KEY (id, name)', 'PARTITION BY HASH (name)'), difference: /partition it by id alone/, mend: [...anew('id uuid PRIMARY KEY, name text, data json', 'PARTITION BY HASH (id)'), 'CREATE TABLE below PARTITION OF people FOR VALUES WITH (MODULUS 1, REMAINDER 0)', GRANTED] },
]; // prettier-ignore

const filling = [
  `CREATE OR REPLACE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant := 'here'; RETURN NEW; END $$`,
  'CREATE TRIGGER fill BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION fill()',
];

export const FITTING: Pick<Misfit, 'what' | 'statements' | 'rights'>[] = [
  { what: 'the module’s own', statements: [] },
  { what: 'name varchar(200)', statements: ['ALTER TABLE people ALTER name TYPE varchar(200)'] },
  { what: 'name citext', statements: ['CREATE EXTENSION IF NOT EXISTS citext', 'ALTER TABLE people ALTER name TYPE citext'] },
  { what: 'a name that may be null', statements: ['ALTER TABLE people ALTER name DROP NOT NULL'] },
  { what: 'data jsonb', statements: ['ALTER TABLE people ALTER data TYPE jsonb'] },
  { what: 'domains over its types, one over another', statements: ['DROP DOMAIN IF EXISTS key, shortest, short, document', 'CREATE DOMAIN key AS uuid NOT NULL', 'CREATE DOMAIN short AS varchar(50)', 'CREATE DOMAIN shortest AS short', 'CREATE DOMAIN document AS jsonb', ...anew('id key PRIMARY KEY, name shortest, data document')] },
  { what: 'a unique index in place of a key', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey', 'CREATE UNIQUE INDEX ON people (id) INCLUDE (name)'] },
  { what: 'a unique id beside the key of a tenant', statements: ['ALTER TABLE people DROP CONSTRAINT people_pkey, ADD tenant int NOT NULL DEFAULT 1, ADD PRIMARY KEY (tenant, id), ADD UNIQUE (id)'] },
  { what: 'columns more that have their values', statements: ['ALTER TABLE people ADD n bigint GENERATED ALWAYS AS IDENTITY, ADD at timestamptz NOT NULL DEFAULT now(), ADD up text GENERATED ALWAYS AS (upper(name)) STORED, ADD free text'] },
  { what: 'a column more that a trigger fills', statements: ['ALTER TABLE people ADD tenant text NOT NULL', ...filling] },
  { what: 'no default of id', statements: ['ALTER TABLE people ALTER id DROP DEFAULT'] },
  { what: 'row security', statements: ['ALTER TABLE people ENABLE ROW LEVEL SECURITY', 'CREATE POLICY all_rows ON people USING (true)'] },
  { what: 'rights to columns alone, none of which is a system column', statements: [], rights: ['REVOKE ALL ON people FROM $role', 'GRANT SELECT (id, name, data), INSERT (id, name, data), UPDATE (name, data) ON people TO $role', 'GRANT DELETE ON people TO $role'] },
  { what: 'a partitioned table', statements: [...anew('id uuid PRIMARY KEY, name text, data json', 'PARTITION BY HASH (id)'), 'CREATE TABLE below PARTITION OF people FOR VALUES WITH (MODULUS 1, REMAINDER 0)'] },
  { what: 'a view of a table', statements: below('SELECT id, name, data FROM below') },
  { what: 'a view of a view, with jsonb', statements: [...below('SELECT id, name, data FROM below', 'id uuid PRIMARY KEY, name text, data jsonb'), 'CREATE OR REPLACE VIEW between AS SELECT * FROM below', `CREATE OR REPLACE VIEW people AS SELECT * FROM between WHERE name <> 'x'`] },
  { what: 'a view that shows xmin and ctid', statements: below('SELECT id, name, data, xmin, ctid FROM below') },
]; // prettier-ignore
