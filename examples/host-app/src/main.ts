import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { AppModule } from './app.module.js';

// rawBody: JSON.parse would round large numbers, so the routes of people read the bytes.
const app = await NestFactory.create<NestExpressApplication>(AppModule, { rawBody: true });
// Express by itself reads application/json alone, and 100 kB of it: too little for PATCH with a merge patch and for bulk arrays.
app.useBodyParser('json', { type: ['application/json', 'application/merge-patch+json'], limit: '16mb' });
app.enableShutdownHooks();
await app.listen(process.env.PORT ?? 3000, '127.0.0.1');
new Logger('HostApp').log(`listening on ${await app.getUrl()}`);
