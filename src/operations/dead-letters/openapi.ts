import { applyDecorators } from '@nestjs/common';
import { problem } from '../../errors/problem.dto.js';
import { OperatorRoutes } from '../operator-routes.js';

/** For a controller of routes about messages. */
export const MessageRoutes = () =>
  applyDecorators(OperatorRoutes('messages'), problem(503, 'Connections exhausted, or the database away.'));

export const NOT_FOUND = problem(404, 'There is none.');
export const SETTLED = problem(409, 'Somebody else was first: it is replayed or discarded already.');
export const RUNNING = problem(409, 'Another window is being replayed.');
