import { Column, Entity, PrimaryColumn } from 'typeorm';

/** What somebody has bought. */
@Entity('orders')
export class Order {
  /** Chosen by whoever orders. */
  @PrimaryColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'person_id' })
  personId!: string;

  @Column('text')
  item!: string;

  @Column('int')
  quantity!: number;
}
