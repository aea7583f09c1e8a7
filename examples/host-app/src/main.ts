import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { preparePeopleHost } from 'nestjs-people';
import { AppModule } from './app.module.js';

// rawBody: JSON.parse would round large numbers, so the routes of contracts read the bytes.
const app = await NestFactory.create(AppModule, { rawBody: true });
// Those of people read their bodies themselves, behind the guards and with limits of their own.
preparePeopleHost(app);
app.enableShutdownHooks();
await app.listen(process.env.PORT ?? 3000, '127.0.0.1');
new Logger('HostApp').log(`listening on ${await app.getUrl()}`);
