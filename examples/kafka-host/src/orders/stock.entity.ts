import { Column, Entity, PrimaryColumn } from 'typeorm';

/** What there is of an item. */
@Entity('stock')
export class Stock {
  @PrimaryColumn('text')
  item!: string;

  @Column('int')
  available!: number;
}
