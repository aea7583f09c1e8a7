import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';

@Entity('contracts')
export class Contract {
  @PrimaryGeneratedColumn('identity')
  id!: number;

  @Column('text', { unique: true })
  title!: string;

  @Column('uuid', { name: 'person_id' })
  personId!: string;
}
