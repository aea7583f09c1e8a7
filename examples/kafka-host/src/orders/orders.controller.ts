import { Controller, Get, UseFilters, ValidationPipe } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { InjectRepository } from '@nestjs/typeorm';
import { MessageErrorFilter, Transactional } from 'nestjs-people';
import { Repository } from 'typeorm';
import { Order } from './order.entity.js';
import { OrdersService, type Placed } from './orders.service.js';
import { PlaceOrderDto } from './place-order.dto.js';
import { Stock } from './stock.entity.js';

/** The topic `orders.place`, and what came of it. */
@Controller()
export class OrdersController {
  constructor(
    private readonly orders: OrdersService,
    @InjectRepository(Order) private readonly all: Repository<Order>,
    @InjectRepository(Stock) private readonly stock: Repository<Stock>,
  ) {}

  /**
   * Applied once per message, however often it comes, and again from its start where it collides: two that order the last lamp
   * read the stock and then write it, which SERIALIZABLE notices.
   */
  @MessagePattern('orders.place')
  @Transactional({ isolationLevel: 'SERIALIZABLE' })
  @UseFilters(MessageErrorFilter) // who asked is told {code, message, retryable, errors?}
  place(@Payload(new ValidationPipe({ whitelist: true })) order: PlaceOrderDto): Promise<Placed> {
    return this.orders.place(order);
  }

  @Get('orders')
  list(): Promise<Order[]> {
    return this.all.find({ order: { id: 'ASC' } });
  }

  @Get('stock')
  left(): Promise<Stock[]> {
    return this.stock.find({ order: { item: 'ASC' } });
  }
}
