import { BadRequestException, Injectable } from '@nestjs/common';
import { currentTransaction, Outbox, PeopleService } from 'nestjs-people';
import { Order } from './order.entity.js';
import type { PlaceOrderDto } from './place-order.dto.js';
import { Stock } from './stock.entity.js';

/** What became of an order. */
export interface Placed {
  id: string;
  status: 'placed' | 'sold-out';
}

/** Orders, in the unit of work of whoever calls. */
@Injectable()
export class OrdersService {
  constructor(
    private readonly people: PeopleService,
    private readonly outbox: Outbox,
  ) {}

  /**
   * Takes what is ordered out of the stock, and tells others what became of the order: all of it, or none.
   *
   * @throws BadRequestException there is no such item
   */
  async place({ id, customer, item, quantity }: PlaceOrderDto): Promise<Placed> {
    const { manager } = currentTransaction()!;
    const stock = await manager.findOneBy(Stock, { item });
    // The message is wrong and stays so: a dead letter at once, for somebody to look at.
    if (!stock) throw new BadRequestException(`There is no item ${item}.`);
    // This is no error but an answer: nothing would be gained by trying again.
    const status = stock.available < quantity ? 'sold-out' : 'placed';
    if (status === 'placed') {
      const person = await this.people.create({ name: customer });
      await manager.update(Stock, { item }, { available: stock.available - quantity });
      await manager.insert(Order, { id, personId: person.id, item, quantity });
    }
    // Sent if and only if all of this is committed.
    this.outbox.publish({
      aggregateType: 'order',
      aggregateId: id,
      type: `order.${status}`,
      topic: 'orders.events',
      payload: { value: { id, item, quantity } },
    });
    return { id, status };
  }
}
