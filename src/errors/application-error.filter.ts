import { type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common';
import { ApplicationConfig, HttpAdapterHost } from '@nestjs/core';
import { STATUS_CODES } from 'node:http';
import { type Observable, throwError } from 'rxjs';
import { ApplicationError } from './application-error.js';
import { answerFailure, failuresOf, toMessageError } from './error-responses.js';

/**
 * Answers our own errors where no filter of the application does: in the shape of Nest's default answers, with their status and
 * `Retry-After`. `ProblemDetailsFilter` has all of what is known of them.
 */
@Catch(ApplicationError)
export class ApplicationErrorFilter implements ExceptionFilter {
  constructor(
    private readonly adapterHost: HttpAdapterHost,
    config: ApplicationConfig,
  ) {
    // Of global filters the last that takes an error is asked. As APP_FILTER this one would stand behind those of the root module.
    const filters = config.getGlobalFilters();
    if (!filters.some((filter) => filter instanceof ApplicationErrorFilter)) filters.unshift(this);
  }

  catch(error: ApplicationError, host: ArgumentsHost): Observable<never> | void {
    const type = host.getType<string>();
    if (type === 'rpc') return throwError(() => toMessageError(error));
    // GraphQL and others have answers of their own for what is thrown.
    if (type !== 'http') throw error;
    const { httpAdapter } = this.adapterHost;
    answerFailure({ httpAdapter, failures: failuresOf(this.adapterHost) }, error, host, (failure) => {
      const { status: statusCode, detail: message, errors } = failure;
      return { message, error: STATUS_CODES[statusCode], statusCode, ...(errors && { errors }) };
    });
  }
}
