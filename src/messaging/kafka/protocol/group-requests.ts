import type { CommitOffset } from '../../kafka-driver.js';
import { partitionsByTopic, type TopicPartition } from '../../records/record.js';
import type { ApiRequest } from './topic-requests.js';
import { type AnswerReader, RequestWriter } from './wire-format.js';

const request = <Answer>(
  name: string,
  apiKey: number,
  apiVersion: number,
  { bytes: body }: RequestWriter,
  read: (answer: AnswerReader) => Answer,
): ApiRequest<Answer> => ({ name, apiKey, apiVersion, isFlexible: false, body, read });

/** An answer that has an error's code and nothing else. */
const codeOf = (answer: AnswerReader) => {
  answer.int32();
  return { errorCode: answer.int16() };
};

export const findCoordinator = (groupId: string) =>
  request('FindCoordinator', 10, 2, new RequestWriter().text(groupId).int8(0), (answer) => {
    const { errorCode } = codeOf(answer);
    answer.nullableText();
    answer.int32();
    return { errorCode, host: answer.text(), port: answer.int32() };
  });

/** A way to assign partitions that a member offers, and what it tells the one that does. */
export interface GroupProtocol {
  name: string;
  metadata: Buffer;
}

export const joinGroup = (
  { groupId, memberId }: { groupId: string; memberId: string },
  { sessionMs, rebalanceMs }: { sessionMs: number; rebalanceMs: number },
  protocols: readonly GroupProtocol[],
) => {
  const writer = new RequestWriter();
  writer
    .text(groupId)
    .int32(sessionMs)
    .int32(rebalanceMs)
    .text(memberId)
    .text('consumer')
    .array(protocols, ({ name, metadata }) => writer.text(name).blob(metadata));
  return request('JoinGroup', 11, 4, writer, (answer) => ({
    ...codeOf(answer),
    generationId: answer.int32(),
    protocol: answer.nullableText(),
    leader: answer.nullableText(),
    memberId: answer.nullableText() ?? '',
    members: answer.array(() => ({ memberId: answer.text(), metadata: answer.blob() })),
  }));
};

/** A member of a generation of a group. */
export interface GroupMember {
  groupId: string;
  generationId: number;
  memberId: string;
}

const memberOf = ({ groupId, generationId, memberId }: GroupMember) =>
  new RequestWriter().text(groupId).int32(generationId).text(memberId);

export const syncGroup = (
  member: GroupMember,
  assignments: readonly { memberId: string; assignment: Buffer }[],
) => {
  const writer = memberOf(member);
  writer.array(assignments, ({ memberId, assignment }) => writer.text(memberId).blob(assignment));
  return request('SyncGroup', 14, 2, writer, (answer) => ({
    ...codeOf(answer),
    assignment: answer.blob(),
  }));
};

export const heartbeat = (member: GroupMember) => request('Heartbeat', 12, 2, memberOf(member), codeOf);

export const leaveGroup = ({ groupId, memberId }: Pick<GroupMember, 'groupId' | 'memberId'>) =>
  request('LeaveGroup', 13, 2, new RequestWriter().text(groupId).text(memberId), codeOf);

export const offsetCommit = (member: GroupMember, offsets: readonly CommitOffset[]) => {
  const writer = memberOf(member);
  writer.array([...partitionsByTopic(offsets).keys()], (name) =>
    writer.text(name).array(
      offsets.filter(({ topic }) => topic === name),
      ({ partition, offset }) => writer.int32(partition).int64(offset).text(null),
    ),
  );
  return request('OffsetCommit', 8, 5, writer, (answer) => {
    answer.int32();
    return answer
      .array(() => {
        const topic = answer.text();
        return answer.array(() => ({ topic, partition: answer.int32(), errorCode: answer.int16() }));
      })
      .flat();
  });
};

/** `offset` is -1 where the group has committed none. */
export const offsetFetch = (groupId: string, partitions: readonly TopicPartition[]) => {
  const writer = new RequestWriter();
  writer
    .text(groupId)
    .array([...partitionsByTopic(partitions)], ([name, numbers]) =>
      writer.text(name).array(numbers, (partition) => writer.int32(partition)),
    );
  return request('OffsetFetch', 9, 4, writer, (answer) => {
    answer.int32();
    const offsets = answer
      .array(() => {
        const topic = answer.text();
        return answer.array(() => {
          const [partition, offset] = [answer.int32(), answer.int64()];
          answer.nullableText();
          return { topic, partition, offset, errorCode: answer.int16() };
        });
      })
      .flat();
    return { offsets, errorCode: answer.int16() };
  });
};
