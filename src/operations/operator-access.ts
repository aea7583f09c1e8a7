import {
  type CanActivate,
  type ExecutionContext,
  ForbiddenException,
  Inject,
  Injectable,
  SetMetadata,
} from '@nestjs/common';

/** What a token has to be good for: to see messages, and to do something about them. */
export type OperationScope = 'people:read' | 'people:operate';

/** Metadata of a controller or handler, for guards: the scope that its callers need. */
export const OPERATION_SCOPE = Symbol.for('nestjs-people:OPERATION_SCOPE');

/** Says which scope the callers of a handler, or of all of a controller, need. */
export const NeedsScope = (scope: OperationScope) =>
  SetMetadata<symbol, OperationScope>(OPERATION_SCOPE, scope);

/** The scope that a handler needs; undefined where it names none. */
export const scopeNeeded = (context: ExecutionContext): OperationScope | undefined =>
  (Reflect.getMetadata(OPERATION_SCOPE, context.getHandler()) ??
    Reflect.getMetadata(OPERATION_SCOPE, context.getClass())) as OperationScope | undefined;

/**
 * Names who sent a request, for the audit: the subject of its token. What lets requests in, and asks for their scopes, is a guard
 * of the application; a request whose sender has no name is refused.
 */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- requests are those of the platform and its guards
export type OperatorOf = (request: any) => string | undefined;
export const OPERATOR_OF = Symbol('OPERATOR_OF');

/** Lets in nobody who has no name. */
@Injectable()
export class OperatorGuard implements CanActivate {
  constructor(@Inject(OPERATOR_OF) private readonly operatorOf: OperatorOf) {}

  canActivate(context: ExecutionContext): boolean {
    if (this.operatorOf(context.switchToHttp().getRequest()) !== undefined) return true;
    throw new ForbiddenException(
      'Nobody knows who you are: what is done about messages is kept with a name.',
    );
  }
}
