import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { Order } from './order.entity.js';
import { OrdersController } from './orders.controller.js';
import { OrdersService } from './orders.service.js';
import { Stock } from './stock.entity.js';

/** Orders, and what there is to order. */
@Module({
  imports: [TypeOrmModule.forFeature([Order, Stock])],
  controllers: [OrdersController],
  providers: [OrdersService],
})
export class OrdersModule {}
