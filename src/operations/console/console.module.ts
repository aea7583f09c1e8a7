import { Module } from '@nestjs/common';
import { ConsoleController } from './console.controller.js';

/**
 * `/console`: a page that shows `/metrics` and `/health/ready`, finds people, and deals with dead letters by the routes of
 * `MessageOperationsModule`. For an application that has these.
 */
@Module({ controllers: [ConsoleController] })
export class ConsoleModule {}
