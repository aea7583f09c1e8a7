import 'reflect-metadata';
import { Logger } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { KafkaTransport } from 'nestjs-people';
import { AppModule } from './app.module.js';

const app = await NestFactory.create(AppModule);
app.connectMicroservice({ strategy: app.get(KafkaTransport) });
app.enableShutdownHooks();
await app.startAllMicroservices();
await app.listen(process.env.PORT ?? 3000, '127.0.0.1');
new Logger('KafkaHost').log(`listening on ${await app.getUrl()}`);
