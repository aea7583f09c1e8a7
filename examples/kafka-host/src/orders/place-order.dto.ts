import { IsInt, IsNotEmpty, IsString, IsUUID, Max, Min } from 'class-validator';

/** A message of `orders.place`. */
export class PlaceOrderDto {
  @IsUUID()
  id!: string;

  @IsString()
  @IsNotEmpty()
  customer!: string;

  @IsString()
  @IsNotEmpty()
  item!: string;

  @IsInt()
  @Min(1)
  @Max(100)
  quantity!: number;
}
