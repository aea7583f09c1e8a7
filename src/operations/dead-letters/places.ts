import {
  type CallHandler,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  ServiceUnavailableException,
} from '@nestjs/common';
import { whenOver } from '../../http/answer-end.js';

/** What is shown whole takes some MiB until it is sent. */
const PLACES = 8;

/** Bounds the large answers that are under way at once. */
@Injectable()
export class LargeAnswerInterceptor implements NestInterceptor {
  private taken = 0;

  intercept(context: ExecutionContext, next: CallHandler) {
    if (this.taken >= PLACES)
      throw new ServiceUnavailableException(
        `${PLACES} dead letters are being shown at this moment; try again.`,
      );
    this.taken++;
    whenOver(context.switchToHttp().getResponse(), () => this.taken--);
    return next.handle();
  }
}
