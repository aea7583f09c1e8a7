import {
  BadRequestException,
  createParamDecorator,
  type ExecutionContext,
  type RawBodyRequest,
} from '@nestjs/common';
import { parseJson } from 'nestjs-people';

/** `@Body()` for JSON whose numbers must not change: integers beyond 2^53 are bigints. */
export const LosslessBody = createParamDecorator((_: unknown, context: ExecutionContext) => {
  const { rawBody } = context.switchToHttp().getRequest<RawBodyRequest<object>>();
  if (!rawBody?.length) throw new BadRequestException('The request needs a JSON body.');
  return parseJson(rawBody.toString());
});
