import kafkajs, { type AclEntry, type Admin } from 'kafkajs';
import { eventually } from './barrier.js';
import { SERVICE_USER } from './kafka-listeners.js';

// They are not among the names that Node finds in a CommonJS module.
const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } = kafkajs;

/** What may be denied, as Kafka calls it. */
export type Operation = 'READ' | 'WRITE' | 'CREATE' | 'DESCRIBE';
export type Resource = { topic: string } | { group: string } | 'cluster';

const ALL: Pick<AclEntry, 'principal' | 'host' | 'operation' | 'permissionType' | 'resourcePatternType'> = {
  principal: `User:${SERVICE_USER.username}`,
  host: '*',
  operation: AclOperationTypes.ALL,
  permissionType: AclPermissionTypes.ALLOW,
  resourcePatternType: ResourcePatternTypes.LITERAL,
};

/** What the service's user may do at a cluster. */
export class Permissions {
  private denied: AclEntry[] = [];

  constructor(private readonly admin: Admin) {}

  /** Everything that is not denied. */
  async grantAll(): Promise<void> {
    const types = [AclResourceTypes.TOPIC, AclResourceTypes.GROUP, AclResourceTypes.TRANSACTIONAL_ID];
    const acl = [
      ...types.map((resourceType) => ({ ...ALL, resourceType, resourceName: '*' })),
      { ...ALL, resourceType: AclResourceTypes.CLUSTER, resourceName: 'kafka-cluster' },
    ];
    await this.admin.createAcls({ acl });
  }

  /** Resolves once the broker knows: it learns what its controller has stored a little later. */
  async deny(operation: Operation, resource: Resource): Promise<void> {
    const entry = denialOf(operation, resource);
    this.denied.push(entry);
    await this.admin.createAcls({ acl: [entry] });
    await eventually(async () => (await this.admin.describeAcls(entry)).resources.length > 0);
  }

  /** Takes back what was denied; left out: everything that this has denied. */
  async allow(operation?: Operation, resource?: Resource): Promise<void> {
    const filters = operation && resource ? [denialOf(operation, resource)] : this.denied.splice(0);
    if (filters.length > 0) await this.admin.deleteAcls({ filters });
  }
}

const denialOf = (operation: Operation, resource: Resource): AclEntry => ({
  ...ALL,
  ...resourceOf(resource),
  operation: AclOperationTypes[operation],
  permissionType: AclPermissionTypes.DENY,
});

function resourceOf(resource: Resource): Pick<AclEntry, 'resourceType' | 'resourceName'> {
  if (resource === 'cluster')
    return { resourceType: AclResourceTypes.CLUSTER, resourceName: 'kafka-cluster' };
  return 'topic' in resource
    ? { resourceType: AclResourceTypes.TOPIC, resourceName: resource.topic }
    : { resourceType: AclResourceTypes.GROUP, resourceName: resource.group };
}
