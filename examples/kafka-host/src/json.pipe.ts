import { BadRequestException, Injectable, type PipeTransform } from '@nestjs/common';
import { parseJson } from 'nestjs-people';

/** The value of a message: JSON whose numbers must not change, so that it is parsed here and by nobody before. */
@Injectable()
export class JsonPipe implements PipeTransform {
  transform(value: unknown): unknown {
    if (!Buffer.isBuffer(value)) return value;
    try {
      return parseJson(value.toString());
    } catch (cause) {
      throw new BadRequestException('The value of the message is no JSON.', { cause });
    }
  }
}
