import { Person } from 'nestjs-people';
import { Column, Entity, ForeignKey, PrimaryGeneratedColumn } from 'typeorm';

/** What a person has signed; no two have the same title. */
@Entity('contracts')
export class Contract {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'person_id' })
  @ForeignKey(() => Person, { name: 'contracts_person_id_fkey', onDelete: 'CASCADE' })
  personId!: string;

  @Column('text', { unique: true })
  title!: string;
}
