import { Person } from 'nestjs-people';
import { Column, Entity, JoinColumn, ManyToOne, PrimaryGeneratedColumn } from 'typeorm';

/** What a person has signed; no two have the same title. */
@Entity('contracts')
export class Contract {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'person_id' })
  personId!: string;

  /** Only there where it is asked for (`relations`). */
  @ManyToOne(() => Person, { onDelete: 'CASCADE' })
  @JoinColumn({ name: 'person_id', foreignKeyConstraintName: 'contracts_person_id_fkey' })
  person?: Person;

  @Column('text', { unique: true })
  title!: string;
}
